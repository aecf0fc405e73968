-- The invariants, one query each: what a row of the answer would mean is the purpose.

-- running_without_owner: a running job has an instance, a claim and a start
SELECT id FROM asyncjobs_jobs
WHERE state = 'running' AND (instance IS NULL OR claim = 0 OR started_at IS NULL) LIMIT 5;

-- finished_without_end: a finished job has an end, an unfinished one has none
SELECT id FROM asyncjobs_jobs
WHERE (state IN ('completed', 'failed', 'cancelled')) <> (finished_at IS NOT NULL) LIMIT 5;

-- unknown_state: only the six states are stored
SELECT id FROM asyncjobs_jobs
WHERE state NOT IN ('blocked', 'queued', 'running', 'completed', 'failed', 'cancelled') LIMIT 5;

-- result_of_unfinished: only completed jobs have a result
SELECT j.id FROM asyncjobs_results AS r JOIN asyncjobs_jobs AS j ON j.seq = r.seq
WHERE j.state <> 'completed' LIMIT 5;

-- kept_all_the_same: a job whose result is not to be kept has none
SELECT j.id FROM asyncjobs_results AS r JOIN asyncjobs_jobs AS j ON j.seq = r.seq
WHERE j.state = 'completed' AND j.reason = 'result_not_kept' LIMIT 5;

-- failed_without_error: a failed job has the error of its last run
SELECT id FROM asyncjobs_jobs AS j WHERE state = 'failed' AND NOT EXISTS (
  SELECT 1 FROM asyncjobs_attempts AS a WHERE a.seq = j.seq) LIMIT 5;

-- crashes_over_limit: no job crashed more often than it may
SELECT id FROM asyncjobs_jobs WHERE crashes > max_crashes LIMIT 5;

-- started_too_early: no run starts before the job is due
SELECT id FROM asyncjobs_jobs WHERE state = 'running' AND started_at < run_at LIMIT 5;

-- started_too_late: no job is started for the first time after it has expired
SELECT id FROM asyncjobs_jobs
WHERE claim = 1 AND state IN ('running', 'completed', 'failed') AND started_at >= expires_at LIMIT 5;

-- fingerprint_of_other: only failed jobs have a fingerprint
SELECT id FROM asyncjobs_jobs WHERE fingerprint IS NOT NULL AND state <> 'failed' LIMIT 5;

-- failures: the counters of failures say what the table holds
SELECT fingerprint FROM (
  SELECT fingerprint, count(*) AS jobs FROM asyncjobs_jobs
  WHERE fingerprint IS NOT NULL GROUP BY fingerprint
  UNION ALL SELECT fingerprint, -jobs FROM asyncjobs_failures
) GROUP BY fingerprint HAVING sum(jobs) <> 0 LIMIT 5;

-- newer_attempt: no recorded run is newer than the job's fence
SELECT j.id FROM asyncjobs_attempts AS a JOIN asyncjobs_jobs AS j ON j.seq = a.seq
WHERE a.claim > j.claim LIMIT 5;

-- limit_places: a job with a limit holds a permit, waits for one, is due later, or has ended
SELECT j.id FROM asyncjobs_limited AS l JOIN asyncjobs_jobs AS j ON j.seq = l.seq
JOIN asyncjobs_limits AS k ON k.id = l.limit_id
WHERE CASE ifnull(l.place, 'out')
  WHEN 'in' THEN NOT (
    j.state IN ('queued', 'running') OR (j.state = 'blocked' AND j.reason = 'unknown_task')
    OR (j.state = 'failed' AND k.stops))
  WHEN 'later' THEN NOT (
    j.state = 'queued' OR (j.state = 'blocked' AND j.reason = 'unknown_task'))
  WHEN 'out' THEN j.finished_at IS NULL
  ELSE NOT (j.state = 'blocked' AND j.reason = 'limit') END LIMIT 5;

-- limit_rows: who waits for a permit has a place, and no line waits while it could go on
SELECT id FROM asyncjobs_jobs AS j WHERE state = 'blocked' AND reason = 'limit' AND NOT EXISTS (
  SELECT 1 FROM asyncjobs_limited AS l WHERE l.seq = j.seq AND l.place = 'ready')
UNION ALL
SELECT 'a job of ' || k.name FROM asyncjobs_limits AS k
WHERE k.opens_at IS NULL
  AND EXISTS (SELECT 1 FROM asyncjobs_limited AS l WHERE l.limit_id = k.id AND l.place = 'ready')
  AND ifnull(k.running, 9e9) > (
    SELECT count(*) FROM asyncjobs_limited AS l WHERE l.limit_id = k.id AND l.place = 'in')
LIMIT 5;

-- orphans: everything that hangs on a job has its job
SELECT 'payload ' || seq FROM asyncjobs_payloads
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'result ' || seq FROM asyncjobs_results
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'key ' || key FROM asyncjobs_keys
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'tag ' || tag FROM asyncjobs_tags
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'progress ' || seq FROM asyncjobs_progress
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'log line ' || seq FROM asyncjobs_logs
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'file ' || file FROM asyncjobs_files
WHERE gone = 0 AND seq NOT IN (SELECT seq FROM asyncjobs_results)
UNION ALL SELECT 'place ' || seq FROM asyncjobs_limited
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
  OR limit_id NOT IN (SELECT id FROM asyncjobs_limits)
UNION ALL SELECT 'attempt ' || seq FROM asyncjobs_attempts
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs)
UNION ALL SELECT 'usage ' || seq FROM asyncjobs_usage
WHERE seq NOT IN (SELECT seq FROM asyncjobs_jobs) LIMIT 5;

-- log_totals: what is said to be kept of a job's log is what is there
SELECT seq FROM (
  SELECT seq, lines, bytes FROM asyncjobs_log_totals
  UNION ALL SELECT seq, -count(*), -sum(size) FROM asyncjobs_logs GROUP BY seq
) GROUP BY seq HAVING sum(lines) <> 0 OR sum(bytes) <> 0 LIMIT 5;

-- key_mismatch: a job's key is registered for it, that of a unique job perhaps for a later one
SELECT j.id FROM asyncjobs_jobs AS j WHERE j.key IS NOT NULL AND unicode(j.key) > 1 AND NOT EXISTS (
  SELECT 1 FROM asyncjobs_keys AS k WHERE k.key = j.key AND k.task = j.task AND k.seq = j.seq)
LIMIT 5;

-- key_of_another: a key is registered for a job of its task that goes by it
SELECT j.id FROM asyncjobs_keys AS k JOIN asyncjobs_jobs AS j ON j.seq = k.seq
WHERE k.task <> j.task OR k.key IS NOT j.key LIMIT 5;

-- tag_mismatch: a job's tags are registered for it
SELECT j.id FROM asyncjobs_jobs AS j CROSS JOIN json_each(j.tags) AS t WHERE NOT EXISTS (
  SELECT 1 FROM asyncjobs_tags AS r WHERE r.tag = t.value AND r.seq = j.seq) LIMIT 5;

-- counters: the counter rows say what the table holds
SELECT queue || ' ' || task || ' ' || state FROM (
  SELECT queue, task, state, count(*) AS jobs FROM asyncjobs_jobs GROUP BY queue, task, state
  UNION ALL SELECT queue, task, state, -jobs FROM asyncjobs_counts WHERE queue <> ''
) GROUP BY queue, task, state HAVING sum(jobs) <> 0 LIMIT 5;

-- seqs: no job has a seq that is still to be given out
SELECT id FROM asyncjobs_jobs
WHERE seq > (SELECT jobs FROM asyncjobs_counts WHERE state = 'accepted' AND queue = '') LIMIT 5;

-- doubled_times: no time of a schedule has two jobs
SELECT trigger || ' ' || json_extract(options, '$.scheduled.at') FROM asyncjobs_jobs
WHERE trigger LIKE 'schedule:%' AND json_extract(options, '$.scheduled.at') IS NOT NULL
  AND ifnull(json_extract(options, '$.scheduled.by_hand'), 0) = 0
GROUP BY trigger, json_extract(options, '$.scheduled.at') HAVING count(*) > 1 LIMIT 5;

-- next_times: a schedule that has not ended has a next time, or one that waits
SELECT name FROM asyncjobs_schedules
WHERE (ended_at IS NULL) = (next_at IS NULL AND waiting_at IS NULL) LIMIT 5;
