-- How long jobs stay, waiting and finished.

-- Not started by then, a job is cancelled. Indexed as long as that can happen, and only for those
-- that have such a time: all others are not in the index.
ALTER TABLE asyncjobs_jobs ADD COLUMN expires_at INTEGER;
CREATE INDEX asyncjobs_expiring ON asyncjobs_jobs (expires_at)
WHERE expires_at IS NOT NULL AND claim = 0 AND finished_at IS NULL;

-- Failed jobs that failed alike, by task, type of exception and place in the user's code. Jobs that
-- failed before this migration have no fingerprint.
ALTER TABLE asyncjobs_jobs ADD COLUMN fingerprint TEXT;
ALTER TABLE asyncjobs_attempts ADD COLUMN place TEXT NOT NULL DEFAULT '';
CREATE INDEX asyncjobs_by_fingerprint
  ON asyncjobs_jobs (fingerprint, finished_at) WHERE fingerprint IS NOT NULL;
-- How many of each kind there are; a row without jobs stays for as long as the journal, so that a
-- retry does not forget when it began.
CREATE TABLE asyncjobs_failures (
  fingerprint TEXT    PRIMARY KEY,
  task        TEXT    NOT NULL,
  error_type  TEXT    NOT NULL,
  place       TEXT    NOT NULL,
  jobs        INTEGER NOT NULL,
  first_at    INTEGER NOT NULL,
  last_at     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX asyncjobs_failures_last ON asyncjobs_failures (last_at);

-- Jobs of tasks that say themselves how long they stay, in the order in which they go. All others
-- are not in the index.
ALTER TABLE asyncjobs_jobs ADD COLUMN own_retention INTEGER NOT NULL DEFAULT 0;
CREATE INDEX asyncjobs_retained ON asyncjobs_jobs (task, state, finished_at)
WHERE own_retention = 1 AND finished_at IS NOT NULL;
-- What the tasks say, for processes that do not have them: the newest so many, or up to an age.
CREATE TABLE asyncjobs_retention (
  task   TEXT NOT NULL,
  state  TEXT NOT NULL,
  newest INTEGER,
  age    INTEGER,
  PRIMARY KEY (task, state)
) WITHOUT ROWID;
