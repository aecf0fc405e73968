-- Every statement of the SQLite engine but the listings' filters. A head is a name and a purpose;
-- {rows:N} stands for a list of tuples of N values, {rows:N after M} for one whose tuples share M
-- before those.
-- OR ROLLBACK spares SQLite the journal that it keeps to undo half a statement: a statement that
-- fails here takes its transaction with it anyway.

-- savepoint: what is written in a transaction of the application from here on can be undone alone.
SAVEPOINT asyncjobs;

-- undo_savepoint: undoes what was written since the savepoint, which stays.
ROLLBACK TO asyncjobs;

-- release_savepoint: what was written since is part of the transaction from now on.
RELEASE asyncjobs;

-- take_seqs: hands out a range of seqs that nobody ever gets again; answers with the last.
UPDATE asyncjobs_counts SET jobs = jobs + ?
WHERE queue = '' AND task = '' AND state = 'accepted' RETURNING jobs;

-- insert_jobs: the rows of new jobs that differ in their last seven columns alone; the others are
-- bound once. Queued ones, or running ones that start at once, since nothing else is due.
INSERT OR ROLLBACK INTO asyncjobs_jobs
  (task, queue, priority, max_crashes, trigger, options, own_retention,
   state, instance, claim, attempt, started_at,
   seq, id, run_at, created_at, key, tags, expires_at)
VALUES {rows:7 after 12};

-- insert_payloads: arguments and meta of those that have any.
INSERT OR ROLLBACK INTO asyncjobs_payloads (seq, arguments, meta) VALUES {rows:3};

-- insert_keys: binds idempotency keys to their jobs.
INSERT OR ROLLBACK INTO asyncjobs_keys (key, task, seq) VALUES {rows:3};

-- insert_holds: keys of unique jobs, in place of those that hold them no longer.
INSERT INTO asyncjobs_keys (task, held, until, key, seq) VALUES {rows:2 after 3}
ON CONFLICT (key, task) DO UPDATE
SET seq = excluded.seq, held = excluded.held, until = excluded.until;

-- insert_tags: one row a tag and job.
INSERT OR ROLLBACK INTO asyncjobs_tags (tag, seq) VALUES {rows:2};

-- existing_ids: which of the ids have a row.
SELECT id FROM asyncjobs_jobs WHERE id IN (SELECT value FROM json_each(?));

-- existing_keys: the jobs that hold the keys of a task, and what they were enqueued with.
SELECT k.key, j.id, ifnull(p.arguments, '{}')
FROM json_each(?1) AS w
JOIN asyncjobs_keys AS k ON k.key = w.value AND k.task = ?2
JOIN asyncjobs_jobs AS j ON j.seq = k.seq
LEFT JOIN asyncjobs_payloads AS p ON p.seq = k.seq;

-- holders: the unique jobs that still hold the keys of a task, and how they stand.
SELECT k.key, k.seq, j.id, j.queue, j.run_at,
       j.claim = 0 AND j.state IN ('queued', 'blocked'), k.until
FROM json_each(?1) AS w
CROSS JOIN asyncjobs_keys AS k ON k.key = w.value AND k.task = ?2
CROSS JOIN asyncjobs_jobs AS j ON j.seq = k.seq
WHERE CASE k.held
  WHEN 'queued' THEN j.claim = 0 AND j.state IN ('queued', 'blocked')
  WHEN 'unfinished' THEN j.finished_at IS NULL
  ELSE k.until > ?3 AND j.state <> 'cancelled'
END AND (j.claim > 0 OR j.expires_at IS NULL OR j.expires_at > ?3);

-- replace_job: gives a waiting job what a newer one brought; it keeps its id and its acceptance. That
-- of a schedule stays one, since the next may wait for its end.
UPDATE asyncjobs_jobs
SET queue = ?2, priority = ?3, run_at = ?4, max_crashes = ?5, tags = ?7, expires_at = ?9,
    own_retention = ?10, reason = iif(state = 'blocked', reason, ?11),
    trigger = iif(options ->> '$.scheduled' IS NULL, ?6, trigger),
    options = iif(options ->> '$.scheduled' IS NULL, ?8,
      json_set(ifnull(?8, '{}'), '$.scheduled', options -> '$.scheduled'))
WHERE seq = ?1 RETURNING state;

-- delete_tags_of: the tags of one job, as it had them.
DELETE FROM asyncjobs_tags WHERE seq = ?1 AND tag IN (
  SELECT value FROM asyncjobs_jobs AS j CROSS JOIN json_each(j.tags) WHERE j.seq = ?1);

-- claim_levels: every (queue, priority) that has queued jobs, found by skipping through the index.
WITH RECURSIVE
queues (queue) AS (
  SELECT min(queue) FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable WHERE state = 'queued'
  UNION ALL
  SELECT (SELECT min(j.queue) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable
          WHERE j.state = 'queued' AND j.queue > queues.queue)
  FROM queues WHERE queue IS NOT NULL
),
levels (queue, priority) AS (
  SELECT queue, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable
                 WHERE j.state = 'queued' AND j.queue = queues.queue)
  FROM queues WHERE queue IS NOT NULL
  UNION ALL
  SELECT queue, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable
                 WHERE j.state = 'queued' AND j.queue = levels.queue
                   AND j.priority < levels.priority)
  FROM levels WHERE priority IS NOT NULL
)
SELECT queue, priority FROM levels WHERE priority IS NOT NULL ORDER BY priority DESC;

-- claim_levels_of: the same among given queues.
WITH RECURSIVE
levels (queue, priority) AS (
  SELECT value, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable
                 WHERE j.state = 'queued' AND j.queue = value)
  FROM json_each(?)
  UNION ALL
  SELECT queue, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable
                 WHERE j.state = 'queued' AND j.queue = levels.queue
                   AND j.priority < levels.priority)
  FROM levels WHERE priority IS NOT NULL
)
SELECT queue, priority FROM levels WHERE priority IS NOT NULL ORDER BY priority DESC;

-- claim_candidates: due jobs of one queue and priority as they will be when claimed, oldest due
-- first, from a given place on, but for tasks that have no room; the inner limit bounds how many
-- of those are passed over. Arguments and meta come as two lines of JSON, which holds no line
-- break itself: one look at the payload instead of two.
SELECT j.seq, j.id, j.task, j.queue, j.claim + 1, j.attempt + 1, j.crashes, j.snoozes, j.trigger,
       j.tags, j.options,
       (SELECT p.arguments || char(10) || ifnull(p.meta, '')
        FROM asyncjobs_payloads AS p WHERE p.seq = j.seq),
       j.run_at, j.max_crashes, j.expires_at
FROM (
  SELECT seq, task FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
  WHERE state = 'queued' AND queue = ? AND priority = ? AND run_at <= ? AND (run_at, seq) > (?, ?)
  ORDER BY run_at, seq LIMIT ?
) AS c
CROSS JOIN asyncjobs_jobs AS j ON j.seq = c.seq
WHERE c.task NOT IN (SELECT value FROM json_each(?))
  AND (? OR j.crashes = 0 OR j.crashes + 1 < j.max_crashes) LIMIT ?;

-- claim_edge: where such a walk ended that had to stop before the last due job, if it had to.
SELECT run_at, seq FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
WHERE state = 'queued' AND queue = ? AND priority = ? AND (run_at, seq) > (?, ?) AND run_at <= ?
ORDER BY run_at, seq LIMIT 1 OFFSET ?;

-- unstarted: how many jobs of each task wait, delayed ones included; and rows of no task when
-- something is set for some queue, and when queued jobs are to ask for a permit when they are due.
SELECT task, state, sum(jobs) FROM asyncjobs_counts
WHERE state IN ('queued', 'blocked') AND jobs > 0 GROUP BY task, state
UNION ALL SELECT '', '', 1 WHERE EXISTS (SELECT 1 FROM asyncjobs_queue_settings)
UNION ALL SELECT '', 'later', 1 WHERE (
  SELECT min(run_at) FROM asyncjobs_limited INDEXED BY asyncjobs_limited_later
  WHERE place = 'later') IS NOT NULL;

-- queue_settings: what is set for queues, and how many jobs of each run.
SELECT s.queue, s.paused, s.running, s.weight, s.ageing, s.rate_jobs, s.rate_per, s.rate_burst, s.spent, (
  SELECT ifnull(sum(c.jobs), 0) FROM asyncjobs_counts AS c
  WHERE c.queue = s.queue AND c.state = 'running')
FROM asyncjobs_queue_settings AS s;

-- set_queue: sets all of it for one queue, but what is used up of the rate.
INSERT INTO asyncjobs_queue_settings
  (queue, paused, running, weight, ageing, rate_jobs, rate_per, rate_burst)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (queue) DO UPDATE
SET paused = excluded.paused, running = excluded.running, weight = excluded.weight,
    ageing = excluded.ageing, rate_jobs = excluded.rate_jobs, rate_per = excluded.rate_per,
    rate_burst = excluded.rate_burst;

-- drop_queue_settings: nothing is set for a queue any more.
DELETE FROM asyncjobs_queue_settings WHERE queue = ?;

-- spend_rate: how much of a queue's rate is used up.
UPDATE asyncjobs_queue_settings SET spent = ? WHERE queue = ?;

-- turns: how far queues are ahead of the one that had its turn last.
SELECT queue, ahead FROM asyncjobs_turns;

-- drop_turns: before they are written anew.
DELETE FROM asyncjobs_turns;

-- insert_turns: what a claim has made of them.
INSERT OR ROLLBACK INTO asyncjobs_turns (queue, ahead) VALUES {rows:2};

-- first_run_at: when the first job of one queue and priority falls due.
SELECT min(run_at) FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
WHERE state = 'queued' AND queue = ? AND priority = ?;

-- next_run_at: when the next job of one queue and priority falls due.
SELECT min(run_at) FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
WHERE state = 'queued' AND queue = ? AND priority = ? AND run_at > ?;

-- parked_tasks: the tasks that parked jobs name, by skipping through the index.
WITH RECURSIVE tasks (task) AS (
  SELECT min(task) FROM asyncjobs_jobs INDEXED BY asyncjobs_parked
  WHERE state = 'blocked' AND reason = 'unknown_task'
  UNION ALL
  SELECT (SELECT min(j.task) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
          WHERE j.state = 'blocked' AND j.reason = 'unknown_task' AND j.task > tasks.task)
  FROM tasks WHERE task IS NOT NULL
)
SELECT task FROM tasks WHERE task IS NOT NULL;

-- parked_candidates: the same for parked jobs of one task, best first, in all queues or in some.
SELECT j.seq, j.id, j.task, j.queue, j.claim + 1, j.attempt + 1, j.crashes, j.snoozes, j.trigger,
       j.tags, j.options,
       (SELECT p.arguments || char(10) || ifnull(p.meta, '')
        FROM asyncjobs_payloads AS p WHERE p.seq = j.seq),
       j.run_at, j.max_crashes, j.expires_at
FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
WHERE state = 'blocked' AND reason = 'unknown_task' AND task = ?1 AND run_at <= ?2
  AND (?3 IS NULL OR queue IN (SELECT value FROM json_each(?3)))
  AND queue NOT IN (SELECT value FROM json_each(?5))
ORDER BY priority DESC, run_at LIMIT ?4;

-- waiting_of: jobs of a claim that are too late to be started.
SELECT seq, id, claim, queue, task, state FROM asyncjobs_jobs
WHERE seq IN (SELECT value FROM json_each(?));

-- expirable: waiting jobs whose time to be started is over, the first of them first.
SELECT seq, id, claim, queue, task, state FROM asyncjobs_jobs INDEXED BY asyncjobs_expiring
WHERE expires_at <= ? AND claim = 0 AND finished_at IS NULL ORDER BY expires_at LIMIT ?;

-- expire: cancels them.
UPDATE asyncjobs_jobs SET state = 'cancelled', reason = 'expired', finished_at = ?
WHERE seq IN (SELECT value FROM json_each(?));

-- next_expiry: when the next waiting job expires.
SELECT min(expires_at) FROM asyncjobs_jobs INDEXED BY asyncjobs_expiring
WHERE expires_at IS NOT NULL AND claim = 0 AND finished_at IS NULL;

-- park: sets aside jobs whose task this process does not know.
UPDATE asyncjobs_jobs SET state = 'blocked', reason = 'unknown_task'
WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, claim, queue, task;

-- put_off: jobs that are due while their windows are closed, until these open.
UPDATE asyncjobs_jobs
SET run_at = v.column2, reason = iif(asyncjobs_jobs.state = 'blocked', reason, 'window')
FROM (VALUES {rows:2}) AS v WHERE asyncjobs_jobs.seq = v.column1;

-- next_parked: when the next parked job of a task falls due that was put off.
WITH RECURSIVE levels (priority) AS (
  SELECT max(priority) FROM asyncjobs_jobs INDEXED BY asyncjobs_parked
  WHERE state = 'blocked' AND reason = 'unknown_task' AND task = ?1
  UNION ALL
  SELECT (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
          WHERE j.state = 'blocked' AND j.reason = 'unknown_task' AND j.task = ?1
            AND j.priority < levels.priority)
  FROM levels WHERE priority IS NOT NULL
)
SELECT min((
  SELECT min(j.run_at) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
  WHERE j.state = 'blocked' AND j.reason = 'unknown_task' AND j.task = ?1
    AND j.priority = levels.priority AND j.run_at > ?2)) FROM levels;

-- claim: takes the chosen jobs under a new fence. What it makes of them was read before, under the
-- same lock: RETURNING it would cost as much as the update.
UPDATE asyncjobs_jobs
SET state = 'running', reason = NULL, instance = ?, claim = claim + 1, attempt = attempt + 1,
    started_at = ?, finished_at = NULL
WHERE seq IN (SELECT value FROM json_each(?));

-- complete: ends runs that returned, each under its fence. The plus keeps the planner on the seq.
UPDATE asyncjobs_jobs SET state = 'completed', reason = NULL, finished_at = v.column3
FROM (VALUES {rows:3}) AS v
WHERE asyncjobs_jobs.seq = v.column1 AND asyncjobs_jobs.claim = v.column2
  AND asyncjobs_jobs.instance = ? AND +asyncjobs_jobs.state = 'running';

-- complete_one: the same for one run, without the cost of a table of one row.
UPDATE asyncjobs_jobs SET state = 'completed', reason = NULL, finished_at = ?3
WHERE seq = ?1 AND claim = ?2 AND instance = ?4 AND +state = 'running';

-- leave_results_out: notes of completed jobs that what they returned is not kept.
UPDATE asyncjobs_jobs SET reason = ? WHERE seq IN (SELECT value FROM json_each(?));

-- still_running: which of the runs [seq, ...] an instance may still end, and under which claim.
SELECT seq, claim FROM asyncjobs_jobs
WHERE seq IN (SELECT value FROM json_each(?)) AND instance = ? AND +state = 'running';

-- move: every other transition of a run, under its fence. Columns: seq, claim, state, reason,
-- run_at, finished_at, attempts given back, crashes, snoozes, rise of the claim number, fingerprint.
UPDATE asyncjobs_jobs
SET state = v.column3, reason = v.column4, run_at = ifnull(v.column5, run_at),
    finished_at = v.column6, attempt = attempt - v.column7, crashes = crashes + v.column8,
    snoozes = snoozes + v.column9, claim = claim + v.column10, fingerprint = v.column11
FROM (VALUES {rows:11}) AS v
WHERE asyncjobs_jobs.seq = v.column1 AND asyncjobs_jobs.claim = v.column2
  AND asyncjobs_jobs.instance = ? AND +asyncjobs_jobs.state = 'running'
RETURNING seq, id, queue, task, attempt, claim, started_at;

-- fence: what a refused write ran into.
SELECT claim, instance FROM asyncjobs_jobs WHERE seq = ?;

-- followed: jobs that have just ended and may have callbacks.
SELECT seq, id, task, state,
       iif(state = 'cancelled', ifnull(nullif(cancel_reason, ''), reason), reason), options
FROM asyncjobs_jobs WHERE seq IN (SELECT value FROM json_each(?)) AND options IS NOT NULL;

-- acknowledge: how far a named subscriber has got; back only when it is moved.
INSERT INTO asyncjobs_subscribers (name, position, place, at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE
SET position = excluded.position, place = excluded.place, at = excluded.at
WHERE ?5 OR (excluded.position, excluded.place) > (position, place);

-- subscriber_place: where a named subscriber goes on.
SELECT position, place FROM asyncjobs_subscribers WHERE name = ?;

-- insert_files: files among the results.
INSERT OR ROLLBACK INTO asyncjobs_files (file, seq) VALUES {rows:2};

-- lose_files: the jobs go or start anew, and with them their files.
UPDATE asyncjobs_files SET gone = 1 WHERE seq IN (SELECT value FROM json_each(?));

-- gone_files: files whose jobs are gone.
SELECT file FROM asyncjobs_files INDEXED BY asyncjobs_files_gone WHERE gone <> 0 LIMIT ?;

-- forget_files: those that are deleted.
DELETE FROM asyncjobs_files WHERE file IN (SELECT value FROM json_each(?)) AND gone <> 0;

-- orphaned_files: which of the files [name, ...] belong to no job and to no run that goes on. A
-- name is the job's row and the claim, and perhaps an ending.
SELECT w.value FROM json_each(?) AS w
WHERE NOT EXISTS (SELECT 1 FROM asyncjobs_files AS f WHERE f.file = w.value)
  AND NOT EXISTS (
    SELECT 1 FROM asyncjobs_jobs AS j
    WHERE j.seq = CAST(w.value AS INTEGER) AND j.state = 'running'
      AND j.claim = CAST(substr(w.value, instr(w.value, '-') + 1) AS INTEGER));

-- insert_results: what completed jobs returned.
INSERT OR ROLLBACK INTO asyncjobs_results (seq, result) VALUES {rows:2};

-- write_progress: how far running jobs are, each under its fence, unless a newer value is there.
INSERT INTO asyncjobs_progress (seq, claim, at, number, done, total, note)
SELECT v.* FROM (VALUES {rows:7}) AS v
JOIN asyncjobs_jobs AS j ON j.seq = v.column1 AND j.claim = v.column2
WHERE j.instance = ? AND +j.state = 'running'
ON CONFLICT (seq) DO UPDATE
SET claim = excluded.claim, at = excluded.at, number = excluded.number, done = excluded.done,
    total = excluded.total, note = excluded.note
WHERE (excluded.claim, excluded.number) > (claim, number)
RETURNING seq, claim, done, total, note;

-- log_totals: the last line of jobs' logs, and how much of them is kept.
SELECT seq, claim, last, lines, bytes, dropped FROM asyncjobs_log_totals
WHERE seq IN (SELECT value FROM json_each(?));

-- set_log_totals: the same after a write.
INSERT OR REPLACE INTO asyncjobs_log_totals (seq, claim, last, lines, bytes, dropped)
VALUES {rows:6};

-- insert_lines: what jobs logged.
INSERT OR ROLLBACK INTO asyncjobs_logs
  (seq, claim, number, attempt, at, level, logger, text, size)
VALUES {rows:9};

-- line_sizes: a job's lines, oldest first, to find out which are too many.
SELECT claim, number, size FROM asyncjobs_logs WHERE seq = ? ORDER BY claim, number;

-- trim_lines: drops a job's lines up to one.
DELETE FROM asyncjobs_logs WHERE seq = ? AND (claim, number) <= (?, ?);

-- lines: a job's log from a line on, oldest first.
SELECT claim, number, at, level, logger, text, attempt FROM asyncjobs_logs
WHERE seq = (SELECT seq FROM asyncjobs_jobs WHERE id = ?) AND (claim, number) > (?, ?)
ORDER BY claim, number LIMIT ?;

-- dropped_lines: how many lines of a job are not kept.
SELECT dropped FROM asyncjobs_log_totals
WHERE seq = (SELECT seq FROM asyncjobs_jobs WHERE id = ?);

-- insert_attempts: the history of runs that failed or crashed.
INSERT OR ROLLBACK INTO asyncjobs_attempts
  (seq, claim, attempt, event, reason, instance, started_at, finished_at,
   error_type, error_message, traceback, place)
VALUES {rows:12};

-- trim_attempts: keeps the newest rows of one job's history.
DELETE FROM asyncjobs_attempts WHERE seq = ?1 AND claim <= (
  SELECT claim FROM asyncjobs_attempts WHERE seq = ?1 ORDER BY claim DESC LIMIT 1 OFFSET ?2
);

-- insert_usage: what runs in workers have used.
INSERT OR REPLACE INTO asyncjobs_usage
  (seq, claim, cpu_seconds, peak_rss, output, loop_blocks) VALUES {rows:6};

-- trim_usage: keeps the newest rows of one job, as of its history.
DELETE FROM asyncjobs_usage WHERE seq = ? AND claim <= ?;

-- find_jobs: the rows of ids, for what is done by hand; oldest first, as they are retried.
SELECT id, seq, claim, queue, task, state, fingerprint FROM asyncjobs_jobs
WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq;

-- cancel_waiting: ends jobs that do not run. Nor do they show a run: an earlier one is no part of it.
UPDATE asyncjobs_jobs
SET state = 'cancelled', reason = 'user', cancel_reason = ?, finished_at = ?, started_at = NULL
WHERE seq IN (SELECT value FROM json_each(?));

-- cancel_running: notes the request for whoever runs them.
UPDATE asyncjobs_jobs SET cancel_reason = ifnull(cancel_reason, ?)
WHERE seq IN (SELECT value FROM json_each(?));

-- asked_to_cancel: which of the jobs somebody has asked to cancel.
SELECT seq FROM asyncjobs_jobs
WHERE seq IN (SELECT value FROM json_each(?)) AND cancel_reason IS NOT NULL;

-- requeue: gives finished jobs a new life, due from an instant on, one after the other.
UPDATE asyncjobs_jobs
SET state = 'queued', reason = 'retry', run_at = ?1 + w.key * ?2,
    finished_at = NULL, claim = claim + 1,
    attempt = 0, crashes = 0, snoozes = 0, cancel_reason = NULL, fingerprint = NULL
FROM json_each(?3) AS w WHERE asyncjobs_jobs.seq = w.value;

-- edit_arguments: of a job that is retried with others.
INSERT INTO asyncjobs_payloads (seq, arguments) VALUES (?, ?)
ON CONFLICT (seq) DO UPDATE SET arguments = excluded.arguments;

-- add_failures: one more of each kind.
INSERT INTO asyncjobs_failures (fingerprint, task, error_type, place, first_at, last_at, jobs)
SELECT v.*, 1 FROM (VALUES {rows:6}) AS v WHERE TRUE
ON CONFLICT (fingerprint) DO UPDATE
SET jobs = jobs + 1, last_at = max(last_at, excluded.last_at);

-- lose_failures: jobs of a kind that are retried or gone.
UPDATE asyncjobs_failures SET jobs = jobs - ? WHERE fingerprint = ?;

-- prune_failures: kinds that have had no job for long.
DELETE FROM asyncjobs_failures WHERE last_at < ? AND jobs = 0;

-- failures: kinds of failures, each with the job that failed last.
SELECT f.fingerprint, f.task, f.error_type, f.place, f.jobs, f.first_at, f.last_at, j.id,
       ifnull(a.error_message, '')
FROM asyncjobs_failures AS f
CROSS JOIN asyncjobs_jobs AS j ON j.seq = (
  SELECT n.seq FROM asyncjobs_jobs AS n INDEXED BY asyncjobs_by_fingerprint
  WHERE n.fingerprint = f.fingerprint ORDER BY n.finished_at DESC LIMIT 1)
LEFT JOIN asyncjobs_attempts AS a ON a.seq = j.seq AND a.claim = (
  SELECT max(claim) FROM asyncjobs_attempts WHERE seq = j.seq)
WHERE f.jobs > 0 AND (?2 IS NULL OR f.fingerprint = ?2) ORDER BY f.last_at DESC LIMIT ?1;

-- delete_jobs: removes rows, and names what hangs on them.
DELETE FROM asyncjobs_jobs WHERE seq IN (SELECT value FROM json_each(?))
RETURNING seq, claim, queue, task, state, key, tags, claim > 1 OR state <> 'completed', trigger,
          fingerprint;

-- delete_payloads: arguments of deleted jobs.
DELETE FROM asyncjobs_payloads WHERE seq IN (SELECT value FROM json_each(?));

-- delete_results: results of jobs that are deleted or start anew.
DELETE FROM asyncjobs_results WHERE seq IN (SELECT value FROM json_each(?));

-- delete_progress: what deleted jobs said, or those that start anew.
DELETE FROM asyncjobs_progress WHERE seq IN (SELECT value FROM json_each(?));

-- delete_logs: what deleted jobs logged.
DELETE FROM asyncjobs_logs WHERE seq IN (SELECT value FROM json_each(?));

-- delete_log_totals: and how much that was.
DELETE FROM asyncjobs_log_totals WHERE seq IN (SELECT value FROM json_each(?));

-- remember_gone: names of jobs that are to be deleted, for the events that speak of them.
INSERT OR REPLACE INTO asyncjobs_gone (seq, id, task, queue, at)
SELECT seq, id, task, queue, ? FROM asyncjobs_jobs WHERE seq IN (SELECT value FROM json_each(?));

-- delete_attempts: history of deleted jobs.
DELETE FROM asyncjobs_attempts WHERE seq IN (SELECT value FROM json_each(?));

-- delete_usage: what runs of deleted jobs have used.
DELETE FROM asyncjobs_usage WHERE seq IN (SELECT value FROM json_each(?));

-- delete_key: frees a key, unless another job holds it by now.
DELETE FROM asyncjobs_keys WHERE key = ? AND task = ? AND seq = ?;

-- delete_tag: one tag of a deleted job.
DELETE FROM asyncjobs_tags WHERE tag = ? AND seq = ?;

-- prunable: finished jobs past their time, oldest end first, but for those that a rule of their task
-- speaks of, those of an open window, and those that stop their key; the inner limit bounds how many
-- of those are passed over.
SELECT its_seq FROM (
  SELECT seq AS its_seq, own_retention, task AS its_task, key AS its_key
  FROM asyncjobs_jobs INDEXED BY asyncjobs_finished
  WHERE state = ?1 AND finished_at IS NOT NULL AND (finished_at, seq) >= (?2, ?3) AND finished_at < ?4
  ORDER BY finished_at, seq LIMIT 10 * ?5
)
WHERE (own_retention = 0 OR its_task NOT IN (SELECT task FROM asyncjobs_retention WHERE state = ?1))
  AND (its_key IS NULL OR NOT EXISTS (
    SELECT 1 FROM asyncjobs_keys AS k
    WHERE k.key = its_key AND k.task = its_task AND k.seq = its_seq AND k.held = 'window'
      AND k.until > ?6))
  AND (?1 <> 'failed' OR NOT EXISTS (
    SELECT 1 FROM asyncjobs_limited AS l WHERE l.seq = its_seq AND l.place = 'in'))
LIMIT ?5;

-- first_prunable: where the first of these stands.
SELECT finished_at, seq FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_finished
WHERE state = ?1 AND finished_at IS NOT NULL AND (finished_at, seq) >= (?2, ?3) AND finished_at < ?4
  AND (own_retention = 0 OR task NOT IN (SELECT task FROM asyncjobs_retention WHERE state = ?1))
  AND (key IS NULL OR NOT EXISTS (
    SELECT 1 FROM asyncjobs_keys AS k
    WHERE k.key = j.key AND k.task = j.task AND k.seq = j.seq AND k.held = 'window' AND k.until > ?5))
  AND (?1 <> 'failed' OR NOT EXISTS (
    SELECT 1 FROM asyncjobs_limited AS l WHERE l.seq = j.seq AND l.place = 'in'))
ORDER BY finished_at, seq LIMIT 1;

-- drop_rules: what tasks said of how long their jobs stay.
DELETE FROM asyncjobs_retention WHERE task IN (SELECT value FROM json_each(?));

-- add_rules: what they say now.
INSERT OR REPLACE INTO asyncjobs_retention (task, state, newest, age) VALUES {rows:4};

-- rules: what all tasks say.
SELECT task, state, newest, age FROM asyncjobs_retention;

-- edge_of: the first finished job of a task and state behind the newest so many.
SELECT finished_at, seq FROM asyncjobs_jobs INDEXED BY asyncjobs_retained
WHERE own_retention = 1 AND finished_at IS NOT NULL AND task = ? AND state = ?
ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET ?;

-- prunable_retained: the oldest of them up to a place, but for those of an open window and those that
-- stop their key; the inner limit bounds how many of those are passed over.
SELECT its_seq FROM (
  SELECT seq AS its_seq, task AS its_task, key AS its_key
  FROM asyncjobs_jobs INDEXED BY asyncjobs_retained
  WHERE own_retention = 1 AND finished_at IS NOT NULL AND task = ?1 AND state = ?2
    AND (finished_at, seq) <= (?3, ?4) ORDER BY finished_at, seq LIMIT 10 * ?5
) WHERE (its_key IS NULL OR NOT EXISTS (
  SELECT 1 FROM asyncjobs_keys AS k
  WHERE k.key = its_key AND k.task = its_task AND k.seq = its_seq AND k.held = 'window'
    AND k.until > ?6))
  AND (?2 <> 'failed' OR NOT EXISTS (
    SELECT 1 FROM asyncjobs_limited AS l WHERE l.seq = its_seq AND l.place = 'in'))
LIMIT ?5;

-- prune_journal: events past their time, oldest first. The last row stays, or its position would be
-- given out again. Looks at the oldest rows alone, since there is no index on the time and a search
-- for old ones would walk through the whole journal.
DELETE FROM asyncjobs_journal WHERE position IN (
  SELECT position FROM (SELECT position, at FROM asyncjobs_journal ORDER BY position LIMIT ?)
  WHERE at < ?
) AND position < (SELECT max(position) FROM asyncjobs_journal) RETURNING position;

-- note_pruned: how far the beginning of the journal is gone.
UPDATE asyncjobs_meta SET value = max(value, ?) WHERE name = 'journal_pruned';

-- prune_passing: events of runs that went on, past their shorter time. The last row stays too.
DELETE FROM asyncjobs_journal WHERE position IN (
  SELECT position FROM asyncjobs_journal INDEXED BY asyncjobs_passing
  WHERE kind IN ('progress', 'logged') AND at < ? ORDER BY at LIMIT ?
) AND position < (SELECT max(position) FROM asyncjobs_journal) RETURNING position;

-- prune_gone: names of deleted jobs that no event needs any more.
DELETE FROM asyncjobs_gone WHERE seq IN (
  SELECT seq FROM asyncjobs_gone INDEXED BY asyncjobs_gone_at WHERE at < ? ORDER BY at LIMIT ?
) RETURNING seq;

-- prune_instances: processes that ended before the journal begins.
DELETE FROM asyncjobs_instances WHERE ended_at < ?;

-- prune_counts: counters of queues and tasks that have no jobs left; a claim reads them all.
DELETE FROM asyncjobs_counts WHERE jobs = 0 AND queue <> '';

-- pages: how many the file has, and how many of them hold nothing.
SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count;

-- give_page_back: shortens the file by one of them. sqlite3 takes one step of it a call, whatever
-- number stands here.
PRAGMA incremental_vacuum(1);

-- running_of: what one instance is said to run, up to a limit; all of it when that is negative.
SELECT seq, claim, queue, task, attempt, crashes, max_crashes, cancel_reason IS NOT NULL
FROM asyncjobs_jobs INDEXED BY asyncjobs_running
WHERE state = 'running' AND instance = ? LIMIT ?;

-- running_instances: who is said to run something.
SELECT DISTINCT instance FROM asyncjobs_jobs INDEXED BY asyncjobs_running
WHERE state = 'running';

-- join: notes a new instance.
INSERT INTO asyncjobs_instances (id, pid, host, started_at, takes) VALUES (?, ?, ?, ?, ?);

-- takers: processes that have not ended and take jobs, and which.
SELECT id, takes FROM asyncjobs_instances
WHERE ended_at IS NULL AND takes IS NOT NULL ORDER BY started_at LIMIT 1000;

-- running_by_task: how many jobs of each task a process runs.
SELECT task, count(*) FROM asyncjobs_jobs INDEXED BY asyncjobs_running
WHERE state = 'running' AND instance = ? GROUP BY task;

-- running_of_queue: some jobs of a queue that run.
SELECT id FROM asyncjobs_jobs INDEXED BY asyncjobs_running
WHERE state = 'running' AND queue = ? LIMIT ?;

-- options_of: what is kept with one job.
SELECT options FROM asyncjobs_jobs WHERE seq = ?;

-- due_before: due jobs of one queue and priority before a place, counted up to a limit.
SELECT count(*) FROM (
  SELECT 1 FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
  WHERE state = 'queued' AND queue = ? AND priority = ? AND run_at <= ? AND (run_at, seq) < (?, ?)
  LIMIT ?);

-- leave: notes the end of one.
UPDATE asyncjobs_instances SET ended_at = ?, ended_by = ? WHERE id = ? AND ended_at IS NULL;

-- stopped: whether an instance ended by a clean stop, which left behind what would not stop.
SELECT 1 FROM asyncjobs_instances WHERE id = ? AND ended_by = 'stop';

-- cancels_of: which runs of one instance somebody has asked to cancel, and why.
SELECT seq, claim, cancel_reason FROM asyncjobs_jobs INDEXED BY asyncjobs_running
WHERE state = 'running' AND instance = ? AND cancel_reason IS NOT NULL;

-- add_counts: the transaction's change of each counter.
INSERT INTO asyncjobs_counts (queue, task, state, jobs) VALUES {rows:4}
ON CONFLICT (queue, task, state) DO UPDATE SET jobs = jobs + excluded.jobs;

-- add_journal: one row a kind of event.
INSERT OR ROLLBACK INTO asyncjobs_journal (at, kind, jobs, detail) VALUES {rows:4};

-- outcomes: how jobs ended, for handles that were not there when it happened.
SELECT j.id, j.task, j.state,
       iif(j.state = 'cancelled', ifnull(nullif(j.cancel_reason, ''), j.reason), j.reason), r.result,
       a.error_type, a.error_message, a.traceback, a.place
FROM asyncjobs_jobs AS j
LEFT JOIN asyncjobs_results AS r ON r.seq = j.seq
LEFT JOIN asyncjobs_attempts AS a ON j.state = 'failed' AND a.seq = j.seq AND a.claim = (
  SELECT max(claim) FROM asyncjobs_attempts WHERE seq = j.seq)
WHERE j.id IN (SELECT value FROM json_each(?));

-- get: one job, whole.
SELECT {columns}, ifnull(p.arguments, '{}'), p.meta, r.result,
       a.error_type, a.error_message, a.traceback, a.place, g.done, g.total, g.note, g.at
FROM asyncjobs_jobs AS j
LEFT JOIN asyncjobs_progress AS g ON g.seq = j.seq
LEFT JOIN asyncjobs_payloads AS p ON p.seq = j.seq
LEFT JOIN asyncjobs_results AS r ON r.seq = j.seq
LEFT JOIN asyncjobs_attempts AS a ON a.seq = j.seq AND a.claim = (
  SELECT max(claim) FROM asyncjobs_attempts WHERE seq = j.seq)
WHERE j.id = ?;

-- glance: one job to be shown, without what may be long; of its result only that of a file.
SELECT {columns}, NULL, NULL,
       (SELECT r.result FROM asyncjobs_files AS f JOIN asyncjobs_results AS r ON r.seq = f.seq
        WHERE f.seq = j.seq AND f.gone = 0),
       a.error_type, a.error_message, '', a.place, g.done, g.total, g.note, g.at
FROM asyncjobs_jobs AS j
LEFT JOIN asyncjobs_progress AS g ON g.seq = j.seq
LEFT JOIN asyncjobs_attempts AS a ON a.seq = j.seq AND a.claim = (
  SELECT max(claim) FROM asyncjobs_attempts WHERE seq = j.seq)
WHERE j.id = ?;

-- list: jobs for a listing. Long arguments, results and tracebacks stay where they are.
SELECT {columns},
       CASE WHEN length(p.arguments) > 8192 THEN NULL ELSE ifnull(p.arguments, '{}') END,
       p.meta, NULL, a.error_type, a.error_message, '', a.place, g.done, g.total, g.note, g.at
FROM json_each(?) AS w
CROSS JOIN asyncjobs_jobs AS j ON j.seq = w.value
LEFT JOIN asyncjobs_progress AS g ON g.seq = j.seq
LEFT JOIN asyncjobs_payloads AS p ON p.seq = j.seq
LEFT JOIN asyncjobs_attempts AS a ON a.seq = j.seq AND a.claim = (
  SELECT max(claim) FROM asyncjobs_attempts WHERE seq = j.seq);

-- places: where the jobs of a page stand; filters.py fills in the rest.
SELECT {columns} FROM {source} WHERE {where} ORDER BY {order_by} LIMIT ?;

-- count_rows: how many rows pass a filter, up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {where} LIMIT ?);

-- still_passing: which of the jobs [seq, ...] pass a filter now.
SELECT j.id FROM json_each(?) AS w CROSS JOIN asyncjobs_jobs AS j ON j.seq = w.value
WHERE {where};

-- parked_levels: every (reason, task, priority) that has blocked jobs, by skipping through the index.
WITH RECURSIVE
reasons (reason) AS (
  SELECT min(reason) FROM asyncjobs_jobs INDEXED BY asyncjobs_parked WHERE state = 'blocked'
  UNION ALL
  SELECT (SELECT min(j.reason) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
          WHERE j.state = 'blocked' AND j.reason > reasons.reason)
  FROM reasons WHERE reason IS NOT NULL
),
tasks (reason, task) AS (
  SELECT reason, (SELECT min(j.task) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
                  WHERE j.state = 'blocked' AND j.reason = reasons.reason)
  FROM reasons WHERE reason IS NOT NULL
  UNION ALL
  SELECT reason, (SELECT min(j.task) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
                  WHERE j.state = 'blocked' AND j.reason = tasks.reason AND j.task > tasks.task)
  FROM tasks WHERE task IS NOT NULL
),
levels (reason, task, priority) AS (
  SELECT reason, task, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
                        WHERE j.state = 'blocked' AND j.reason = tasks.reason
                          AND j.task = tasks.task)
  FROM tasks WHERE task IS NOT NULL
  UNION ALL
  SELECT reason, task, (SELECT max(j.priority) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_parked
                        WHERE j.state = 'blocked' AND j.reason = levels.reason
                          AND j.task = levels.task AND j.priority < levels.priority)
  FROM levels WHERE priority IS NOT NULL
)
SELECT reason, task, priority FROM levels WHERE priority IS NOT NULL;

-- last_seq: the seq of the job that was accepted last.
SELECT jobs FROM asyncjobs_counts WHERE queue = '' AND task = '' AND state = 'accepted';

-- counts_by_queue: jobs by queue and state, from the counters.
SELECT queue, state, sum(jobs) FROM asyncjobs_counts
WHERE queue <> '' GROUP BY queue, state HAVING sum(jobs) > 0;

-- retrying_by_queue: jobs that failed an attempt and wait for the next, counted up to a limit, and
-- how many of them are due later than a given instant.
SELECT queue, count(*), sum(run_at > ?1) FROM (
  SELECT queue, run_at FROM asyncjobs_jobs INDEXED BY asyncjobs_retrying
  WHERE state = 'queued' AND attempt > 0 LIMIT ?2
) GROUP BY queue;

-- later_in_level: jobs of one queue and priority that are due later, counted up to a limit.
SELECT count(*) FROM (
  SELECT 1 FROM asyncjobs_jobs INDEXED BY asyncjobs_claimable
  WHERE state = 'queued' AND queue = ? AND priority = ? AND run_at > ? LIMIT ?);

-- instances: runner processes and how much each runs; those that have not ended, then the newest.
SELECT i.id, i.pid, i.host, i.started_at, i.ended_at, i.ended_by, (
  SELECT count(*) FROM asyncjobs_jobs AS j INDEXED BY asyncjobs_running
  WHERE j.state = 'running' AND j.instance = i.id)
FROM asyncjobs_instances AS i ORDER BY i.ended_at IS NOT NULL, i.started_at DESC, i.id LIMIT ?;

-- audit: what was done by hand, newest first, from before a position.
SELECT position, at, actor, action, what, matched, changed FROM asyncjobs_audit
WHERE position < ? ORDER BY position DESC LIMIT ?;

-- add_audit: an entry, or the next slice of one.
INSERT INTO asyncjobs_audit (id, at, actor, action, what, matched, changed)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET matched = matched + excluded.matched, changed = changed + excluded.changed;

-- backup: a consistent copy of everything committed, without unused pages.
VACUUM INTO ?;

-- own_attempt: the run that the job's own row tells.
SELECT j.attempt, j.claim, j.state, j.reason, j.instance, j.started_at, j.finished_at,
       u.cpu_seconds, u.peak_rss, ifnull(u.output, ''), ifnull(u.loop_blocks, 0)
FROM asyncjobs_jobs AS j LEFT JOIN asyncjobs_usage AS u ON u.seq = j.seq AND u.claim = j.claim
WHERE j.id = ? AND j.started_at IS NOT NULL AND j.state IN ('running', 'completed', 'cancelled');

-- attempts: a job's recorded history, oldest first.
SELECT a.attempt, a.claim, a.event, a.reason, a.instance, a.started_at, a.finished_at,
       u.cpu_seconds, u.peak_rss, ifnull(u.output, ''), ifnull(u.loop_blocks, 0),
       a.error_type, a.error_message, a.traceback, a.place
FROM asyncjobs_attempts AS a JOIN asyncjobs_jobs AS j ON j.seq = a.seq
LEFT JOIN asyncjobs_usage AS u ON u.seq = a.seq AND u.claim = a.claim
WHERE j.id = ? ORDER BY a.claim;

-- count: how many jobs in some states or, given [], in any, from the counters.
SELECT ifnull(sum(jobs), 0) FROM asyncjobs_counts
WHERE queue <> '' AND (?1 = '[]' OR state IN (SELECT value FROM json_each(?1)))
  AND queue = ifnull(?2, queue) AND task = ifnull(?3, task);

-- tables: what is in the file, ours or not.
SELECT name FROM sqlite_master WHERE type = 'table';

-- schema_version: how far the file has been migrated.
SELECT value FROM asyncjobs_meta WHERE name = 'schema_version';

-- add_fact: a fact about a new file.
INSERT INTO asyncjobs_meta (name, value) VALUES (?, ?);

-- set_schema_version: notes a migration, in its own transaction.
UPDATE asyncjobs_meta SET value = ? WHERE name = 'schema_version';

-- database_id: what no other file has.
SELECT value FROM asyncjobs_meta WHERE name = 'database_id';

-- seq_of: the row of a job, also of a deleted one.
SELECT seq FROM asyncjobs_jobs WHERE id = ? UNION ALL SELECT seq FROM asyncjobs_gone WHERE id = ?;

-- ids_from: the first ids that begin with a text: those between it and it with the last character
-- of all behind it.
SELECT id FROM asyncjobs_jobs WHERE id >= ?1 AND id < ?1 || char(1114111) ORDER BY id LIMIT ?2;

-- state_of: the state of one job.
SELECT state FROM asyncjobs_jobs WHERE id = ?;

-- standing: where one job stands.
SELECT state, claim FROM asyncjobs_jobs WHERE seq = ?;

-- journal_from: rows of the journal from a position on, in commit order.
SELECT position, at, kind, jobs, detail FROM asyncjobs_journal
WHERE position >= ? ORDER BY position LIMIT ?;

-- journal_end: the last position, and the last that was pruned from the beginning.
SELECT ifnull((SELECT max(position) FROM asyncjobs_journal), 0), value
FROM asyncjobs_meta WHERE name = 'journal_pruned';

-- journal_time: the first row of a range of positions, and its time.
SELECT position, at FROM asyncjobs_journal
WHERE position >= ? AND position < ? ORDER BY position LIMIT 1;

-- names: what the jobs [seq, ...] are called, deleted ones included.
SELECT seq, id, task, queue FROM asyncjobs_jobs WHERE seq IN (SELECT value FROM json_each(?))
UNION ALL
SELECT seq, id, task, queue FROM asyncjobs_gone WHERE seq IN (SELECT value FROM json_each(?));

-- first_position: where the journal begins; 1 as long as nothing was pruned.
SELECT min(position) FROM asyncjobs_journal;

-- journal: everything that happened, in commit order.
SELECT kind, jobs FROM asyncjobs_journal ORDER BY position;

-- fences: where each job stands.
SELECT seq, state, claim FROM asyncjobs_jobs;

-- due_schedules: whose time has come, but for some, earliest first.
SELECT name, plan, job, next_at, waiting_at, runs, last_at, last_seq
FROM asyncjobs_schedules INDEXED BY asyncjobs_schedules_due
WHERE paused = 0 AND removed_at IS NULL AND next_at IS NOT NULL AND next_at <= ?
  AND name NOT IN (SELECT value FROM json_each(?))
ORDER BY next_at LIMIT ?;

-- next_schedule: when the next one's time comes.
SELECT next_at FROM asyncjobs_schedules INDEXED BY asyncjobs_schedules_due
WHERE paused = 0 AND removed_at IS NULL AND next_at IS NOT NULL
  AND name NOT IN (SELECT value FROM json_each(?))
ORDER BY next_at LIMIT 1;

-- find_schedule: where one stands, for who changes it; also one that was removed, if so wanted.
SELECT name, plan, job, next_at, waiting_at, runs, last_at, last_seq, origin, paused, removed_at
FROM asyncjobs_schedules WHERE name = ? AND (removed_at IS NULL OR ?);

-- move_schedule: its next step, if it still stands where that was decided: whoever is first takes
-- it, and the jobs come in the same transaction.
UPDATE asyncjobs_schedules
SET next_at = ?, waiting_at = ?, runs = ?, missed = missed + ?, skipped = skipped + ?, ended_at = ?
WHERE name = ? AND next_at IS ? AND waiting_at IS ? RETURNING name;

-- skip_merged: times of a schedule that have made no job, since a unique one was there.
UPDATE asyncjobs_schedules
SET runs = runs - ?1, skipped = skipped + ?1, next_at = ?2, ended_at = ?3 WHERE name = ?4;

-- set_last_run: the newest job of a schedule.
UPDATE asyncjobs_schedules SET last_at = ?, last_seq = ?, last_id = ?, last_state = NULL
WHERE name = ?;

-- set_last_state: how that job ended; its row goes one day.
UPDATE asyncjobs_schedules SET last_state = ? WHERE name = ? AND last_seq = ? RETURNING name;

-- is_unfinished: whether a job is there and has not finished.
SELECT 1 FROM asyncjobs_jobs WHERE seq = ? AND finished_at IS NULL;

-- insert_schedule: a new one, also in place of one that was removed from the code.
INSERT OR REPLACE INTO asyncjobs_schedules (name, origin, plan, job, created_at, next_at, ended_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- change_schedule: another plan, other jobs.
UPDATE asyncjobs_schedules
SET origin = ?, plan = ?, job = ?, next_at = ?, waiting_at = ?, ended_at = ?, removed_at = NULL
WHERE name = ?;

-- pause_schedule: it rests, and what waited is skipped.
UPDATE asyncjobs_schedules
SET paused = 1, skipped = skipped + (waiting_at IS NOT NULL), waiting_at = NULL WHERE name = ?;

-- resume_schedule: lets one go on, from a next time.
UPDATE asyncjobs_schedules SET paused = 0, next_at = ?, ended_at = ? WHERE name = ?;

-- delete_schedule: forgets one; its jobs stay.
DELETE FROM asyncjobs_schedules WHERE name = ?;

-- remove_schedule: it is no longer in the code. Should it be again, it goes on as it stood.
UPDATE asyncjobs_schedules SET removed_at = ? WHERE name = ?;

-- prune_schedules: those that were removed long ago.
DELETE FROM asyncjobs_schedules WHERE origin = 'code' AND removed_at < ?;

-- forget_declarers: processes that are gone, or that say anew what they have.
DELETE FROM asyncjobs_declarers WHERE instance NOT IN (SELECT value FROM json_each(?));

-- insert_declarer: a process has a schedule in its code.
INSERT INTO asyncjobs_declarers (name, instance) VALUES (?, ?);

-- undeclared: schedules that came from code and are in nobody's any more.
SELECT name FROM asyncjobs_schedules AS s INDEXED BY asyncjobs_schedules_of_code
WHERE origin = 'code' AND removed_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM asyncjobs_declarers AS d WHERE d.name = s.name);

-- list_schedules: schedules by name, from a name on, with where their last job stands.
SELECT s.name, s.origin, s.plan, s.job, s.created_at, s.next_at, s.waiting_at, s.paused, s.ended_at,
       s.runs, s.missed, s.skipped, s.last_at, s.last_id, ifnull(j.state, s.last_state)
FROM asyncjobs_schedules AS s LEFT JOIN asyncjobs_jobs AS j ON j.seq = s.last_seq
WHERE s.name >= ? AND s.removed_at IS NULL ORDER BY s.name;

-- find_limits: the rows of the keys [[name, key], ...] that are there.
SELECT k.name, k.key, k.running, k.rate_jobs, k.rate_per, k.rate_burst, k.ordered, k.stops, k.id
FROM json_each(?) AS w CROSS JOIN asyncjobs_limits AS k
WHERE k.name = json_extract(w.value, '$[0]') AND k.key = json_extract(w.value, '$[1]');

-- set_limits: the keys' rows, as said last; one that was pushed back stays so unless its rate changes.
INSERT INTO asyncjobs_limits
  (name, key, running, rate_jobs, rate_per, rate_burst, ordered, stops) VALUES {rows:8}
ON CONFLICT (name, key) DO UPDATE
SET opens_at = iif(rate_jobs IS excluded.rate_jobs AND rate_per IS excluded.rate_per
                   AND rate_burst IS excluded.rate_burst, opens_at, NULL),
    running = excluded.running, rate_jobs = excluded.rate_jobs, rate_per = excluded.rate_per,
    rate_burst = excluded.rate_burst, ordered = excluded.ordered, stops = excluded.stops
RETURNING id, name, key;

-- insert_limited: places of new jobs in the lines of their keys.
INSERT OR ROLLBACK INTO asyncjobs_limited (seq, limit_id, place, priority, run_at)
VALUES {rows:5};

-- limit_rooms: what keys allow, how many permits are taken and, where there is a rate, how many of
-- those jobs have not started, and when the others have, as far as that counts still.
SELECT k.id, k.running, k.rate_jobs, k.rate_per, k.rate_burst, k.spent, k.opens_at,
       (SELECT count(*) FROM asyncjobs_limited AS l WHERE l.limit_id = k.id AND l.place = 'in'),
       iif(k.rate_jobs IS NULL, 0, (
         SELECT count(*) FROM asyncjobs_limited AS l
         CROSS JOIN asyncjobs_jobs AS j ON j.seq = l.seq
         WHERE l.limit_id = k.id AND l.place = 'in' AND +j.state = 'queued')),
       iif(k.rate_jobs IS NULL, '[]', (
         SELECT json_group_array(j.started_at) FROM asyncjobs_limited AS l
         CROSS JOIN asyncjobs_jobs AS j ON j.seq = l.seq
         WHERE l.limit_id = k.id AND l.place = 'in' AND +j.started_at <= ?2
           AND +j.started_at > ?2 - k.rate_burst * 1.0 * k.rate_per / k.rate_jobs))
FROM json_each(?1) AS w CROSS JOIN asyncjobs_limits AS k ON k.id = w.value;

-- rated_keys: of the jobs, those whose keys have a rate.
SELECT l.limit_id, l.seq FROM json_each(?) AS w CROSS JOIN asyncjobs_limited AS l ON l.seq = w.value
CROSS JOIN asyncjobs_limits AS k ON k.id = l.limit_id AND k.rate_jobs IS NOT NULL;

-- next_in_lines: of each key in whose line jobs wait, the next one and the one behind it, or NULL.
SELECT * FROM (SELECT w.value, (
  SELECT l.seq FROM asyncjobs_limited AS l
  WHERE l.limit_id = w.value AND l.place = 'ready'
  ORDER BY l.priority DESC, l.run_at, l.seq LIMIT 1) AS seq, (
  SELECT l.seq FROM asyncjobs_limited AS l
  WHERE l.limit_id = w.value AND l.place = 'ready'
  ORDER BY l.priority DESC, l.run_at, l.seq LIMIT 1 OFFSET 1)
FROM json_each(?) AS w) WHERE seq IS NOT NULL;

-- more_in_line: those behind these two of a key.
SELECT seq FROM asyncjobs_limited WHERE limit_id = ? AND place = 'ready'
ORDER BY priority DESC, run_at, seq LIMIT ? OFFSET 2;

-- take_permits: the jobs hold permits from now on.
UPDATE asyncjobs_limited SET place = 'in' WHERE seq IN (SELECT value FROM json_each(?));

-- pace_limit: what is used up of a key's rate, and when to look at it again.
UPDATE asyncjobs_limits SET spent = ?, opens_at = ? WHERE id = ?;

-- admit: queues jobs that were held. Due from now on, unless they are due later.
UPDATE asyncjobs_jobs SET state = 'queued', reason = NULL, run_at = max(run_at, ?)
WHERE seq IN (SELECT value FROM json_each(?)) AND +state = 'blocked' AND +reason = 'limit'
RETURNING seq, claim, queue, task;

-- step_out: queues a job that its limit blocks, or that whatever blocks, and that is to be changed.
UPDATE asyncjobs_jobs SET state = 'queued', reason = NULL
WHERE seq = ?1 AND state = 'blocked' AND (reason = 'limit' OR ?2) RETURNING seq, claim, queue, task;

-- hold: queued jobs that have no permit.
UPDATE asyncjobs_jobs SET state = 'blocked', reason = 'limit'
WHERE seq IN (SELECT value FROM json_each(?)) AND +state = 'queued'
RETURNING seq, claim, queue, task;

-- unpark: parked jobs that have no permit; that is what blocks them now.
UPDATE asyncjobs_jobs SET reason = 'limit'
WHERE seq IN (SELECT value FROM json_each(?)) AND +state = 'blocked';

-- leave_line: jobs that are finished give their permits back, but for those that failed under a key
-- that stops then.
UPDATE asyncjobs_limited SET place = NULL
WHERE seq IN (SELECT value FROM json_each(?1)) AND place IS NOT NULL
  AND NOT (seq IN (SELECT value FROM json_each(?2)) AND EXISTS (
    SELECT 1 FROM asyncjobs_limits AS k WHERE k.id = asyncjobs_limited.limit_id AND k.stops))
RETURNING limit_id;

-- step_back: of the jobs [[seq, run_at], ...] those due later are not in the way of others till
-- then, unless their key is ordered. Those that have started line up for another start of a rate, or
-- of a key that is closed; so do all of a key that may run fewer than it does, and of an ordered one
-- that has an earlier job waiting: its limit has changed, or that one was retried by hand.
UPDATE asyncjobs_limited
SET place = iif(k.ordered OR json_extract(w.value, '$[1]') <= ?2, 'ready', 'later'),
    run_at = iif(k.ordered, 0, json_extract(w.value, '$[1]'))
FROM json_each(?1) AS w CROSS JOIN asyncjobs_limits AS k
WHERE asyncjobs_limited.seq = json_extract(w.value, '$[0]') AND k.id = asyncjobs_limited.limit_id
  AND (NOT k.ordered AND json_extract(w.value, '$[1]') > ?2
    OR ?3 AND (k.rate_jobs IS NOT NULL OR k.opens_at > ?2)
    OR k.running < (
      SELECT count(*) FROM asyncjobs_limited AS l WHERE l.limit_id = k.id AND l.place = 'in')
    OR k.ordered AND EXISTS (
      SELECT 1 FROM asyncjobs_limited AS l
      WHERE l.limit_id = k.id AND l.place = 'ready' AND l.priority = 0 AND l.run_at = 0
        AND l.seq < asyncjobs_limited.seq))
RETURNING limit_id, seq, place;

-- go_on_after_failures: jobs that have failed stop their key no more.
UPDATE asyncjobs_limited SET place = NULL
WHERE limit_id = ? AND place = 'in'
  AND EXISTS (SELECT 1 FROM asyncjobs_jobs AS j WHERE j.seq = asyncjobs_limited.seq
              AND +j.state = 'failed');

-- realign: the jobs of a key stand in line by seq alone, when it is ordered from now on, or by
-- priority and due time.
UPDATE asyncjobs_limited
SET priority = iif(?2, 0, j.priority), run_at = iif(?2, 0, j.run_at),
    place = iif(place = 'in', place, iif(?2 OR j.run_at <= ?3, 'ready', 'later'))
FROM asyncjobs_jobs AS j
WHERE asyncjobs_limited.limit_id = ?1 AND asyncjobs_limited.place IN ('in', 'ready', 'later')
  AND j.seq = asyncjobs_limited.seq
RETURNING seq, place;

-- spend_limit: what is used up of a key's rate.
UPDATE asyncjobs_limits SET spent = ? WHERE id = ?;

-- close_limit: a key admits none before an instant. What an old rate has left of "spent" goes, or it
-- would look as if the clock had been set back since.
UPDATE asyncjobs_limits
SET opens_at = max(ifnull(opens_at, 0), ?1),
    spent = min(spent, ?2 + ifnull(rate_burst * 1.0 * rate_per / rate_jobs, spent))
WHERE id = ?3;

-- refund_rate: so many starts of a key that were counted have not come. It was open, or there would
-- have been no such permits, so that nothing is lost with the time at which to look again.
UPDATE asyncjobs_limits SET spent = spent - ?1 * 1.0 * rate_per / rate_jobs, opens_at = NULL
WHERE id = ?2 AND rate_jobs IS NOT NULL;

-- recall_permits: those of a key whose jobs have not started, parked ones included, and are due
-- before an instant.
UPDATE asyncjobs_limited SET place = 'ready'
WHERE limit_id = ? AND place = 'in'
  AND EXISTS (SELECT 1 FROM asyncjobs_jobs AS j WHERE j.seq = asyncjobs_limited.seq
              AND +j.state IN ('queued', 'blocked') AND +j.run_at < ?)
RETURNING seq;

-- rejoin_line: jobs that start anew, now or later, line up again, also one that has stopped its key.
UPDATE asyncjobs_limited
SET place = iif(k.ordered OR j.run_at <= ?1, 'ready', 'later'),
    priority = iif(k.ordered, 0, j.priority), run_at = iif(k.ordered, 0, j.run_at)
FROM json_each(?2) AS w CROSS JOIN asyncjobs_jobs AS j CROSS JOIN asyncjobs_limits AS k
WHERE asyncjobs_limited.seq = w.value AND j.seq = w.value AND k.id = asyncjobs_limited.limit_id
RETURNING limit_id, seq, place;

-- recall_later: the permits of ordered keys of jobs behind those that have rejoined their line, and that
-- have not started.
UPDATE asyncjobs_limited SET place = 'ready'
WHERE place = 'in' AND seq IN (
  SELECT l.seq FROM json_each(?) AS w CROSS JOIN asyncjobs_limited AS a ON a.seq = w.value
  CROSS JOIN asyncjobs_limits AS k ON k.id = a.limit_id AND k.ordered
  CROSS JOIN asyncjobs_limited AS l ON l.limit_id = k.id AND l.place = 'in' AND l.seq > a.seq
  CROSS JOIN asyncjobs_jobs AS j ON j.seq = l.seq AND +j.state IN ('queued', 'blocked'))
RETURNING limit_id, seq;

-- key_of_job: whose line a job stands in.
SELECT limit_id FROM asyncjobs_limited WHERE seq = ?;

-- step_aside: a finished job stops its key no more.
UPDATE asyncjobs_limited SET place = NULL WHERE seq = ?;

-- change_key: one that stands in no line is of another key.
UPDATE asyncjobs_limited SET limit_id = ? WHERE seq = ?;

-- delete_limited: places of deleted jobs.
DELETE FROM asyncjobs_limited WHERE seq IN (SELECT value FROM json_each(?))
RETURNING limit_id, place;

-- delete_limits: keys that have no jobs any more, unless what they have used up of their rate, or
-- how long they are closed, counts for the next one.
DELETE FROM asyncjobs_limits
WHERE id IN (SELECT value FROM json_each(?1)) AND spent <= ?2 AND ifnull(opens_at, 0) <= ?2
  AND NOT EXISTS (
    SELECT 1 FROM asyncjobs_limited AS l WHERE l.limit_id = asyncjobs_limits.id);

-- prune_limits: the same for keys of which that counts no longer, among a number of neighbours;
-- each time others, since there is no index that would tell them from keys with jobs.
DELETE FROM asyncjobs_limits WHERE id IN (
  SELECT k.id FROM (
    SELECT id, spent, opens_at FROM asyncjobs_limits
    WHERE id >= ?1 % (SELECT max(id) + 1 FROM asyncjobs_limits) ORDER BY id LIMIT ?2
  ) AS k
  WHERE k.spent <= ?1 AND ifnull(k.opens_at, 0) <= ?1
    AND NOT EXISTS (SELECT 1 FROM asyncjobs_limited AS l WHERE l.limit_id = k.id));

-- next_look: when a job that needs a permit then falls due, and when a key opens.
SELECT (SELECT min(run_at) FROM asyncjobs_limited INDEXED BY asyncjobs_limited_later
        WHERE place = 'later'),
       (SELECT min(opens_at) FROM asyncjobs_limits INDEXED BY asyncjobs_limits_opening
        WHERE opens_at IS NOT NULL);

-- line_due: jobs that have fallen due are ready.
UPDATE asyncjobs_limited SET place = 'ready' WHERE seq IN (
  SELECT seq FROM asyncjobs_limited INDEXED BY asyncjobs_limited_later
  WHERE place = 'later' AND run_at <= ? ORDER BY run_at LIMIT ?)
RETURNING limit_id, seq;

-- limits_opening: keys that were closed until now.
UPDATE asyncjobs_limits SET opens_at = NULL WHERE id IN (
  SELECT id FROM asyncjobs_limits INDEXED BY asyncjobs_limits_opening
  WHERE opens_at <= ? ORDER BY opens_at LIMIT ?)
RETURNING id;

-- standing_in_line: the place of one job, and the key that it belongs to.
SELECT l.limit_id, l.place, l.priority, l.run_at, l.seq, k.name, k.key, k.running, k.ordered,
       k.opens_at
FROM asyncjobs_jobs AS j CROSS JOIN asyncjobs_limited AS l ON l.seq = j.seq
CROSS JOIN asyncjobs_limits AS k ON k.id = l.limit_id
WHERE j.id = ?;

-- permit_holders: jobs of a key that hold permits, at most so many.
SELECT j.id, j.state, j.run_at FROM asyncjobs_limited AS l
CROSS JOIN asyncjobs_jobs AS j ON j.seq = l.seq
WHERE l.limit_id = ? AND l.place = 'in' LIMIT ?;

-- ahead_in_line: how many of a key wait before one, counted up to a limit.
SELECT count(*) FROM (
  SELECT 1 FROM asyncjobs_limited WHERE limit_id = ?1 AND place = 'ready' AND priority > ?2
  UNION ALL
  SELECT 1 FROM asyncjobs_limited
  WHERE limit_id = ?1 AND place = 'ready' AND priority = ?2 AND (run_at, seq) < (?3, ?4)
  LIMIT ?5);
