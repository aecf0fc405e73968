-- How long jobs stay, waiting and finished.

-- Not started by then, a job is cancelled. Indexed as long as that can happen, and only for those
-- that have such a time: all others are not in the index.
ALTER TABLE asyncjobs_jobs ADD COLUMN expires_at INTEGER;
CREATE INDEX asyncjobs_expiring ON asyncjobs_jobs (expires_at)
WHERE expires_at IS NOT NULL AND claim = 0 AND finished_at IS NULL;
