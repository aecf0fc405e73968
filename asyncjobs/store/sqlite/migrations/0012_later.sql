-- Jobs with a limit that are due later are queued, as all others are. Until now they were blocked.

INSERT INTO asyncjobs_counts (queue, task, state, jobs)
SELECT j.queue, j.task, s.value, count(*) * iif(s.value = 'queued', 1, -1)
FROM asyncjobs_limited AS l JOIN asyncjobs_jobs AS j ON j.seq = l.seq
CROSS JOIN json_each('["queued", "blocked"]') AS s
WHERE l.place = 'later' AND j.state = 'blocked' AND j.reason = 'limit'
GROUP BY j.queue, j.task, s.value
ON CONFLICT (queue, task, state) DO UPDATE SET jobs = jobs + excluded.jobs;

INSERT INTO asyncjobs_journal (at, kind, jobs)
SELECT at, 'admitted', jobs FROM (
  SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS at,
         '[' || group_concat(j.seq || ',' || j.claim) || ']' AS jobs
  FROM asyncjobs_limited AS l JOIN asyncjobs_jobs AS j ON j.seq = l.seq
  WHERE l.place = 'later' AND j.state = 'blocked' AND j.reason = 'limit')
WHERE jobs IS NOT NULL;

-- Why they wait was lost; for those that have failed, their last run tells.
UPDATE asyncjobs_jobs SET state = 'queued', reason = iif(attempt = 0, NULL, (
  SELECT a.reason FROM asyncjobs_attempts AS a WHERE a.seq = asyncjobs_jobs.seq
  ORDER BY a.claim DESC LIMIT 1))
WHERE state = 'blocked' AND reason = 'limit'
  AND seq IN (SELECT seq FROM asyncjobs_limited WHERE place = 'later');
