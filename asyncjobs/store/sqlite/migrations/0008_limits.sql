-- Limits by key. A job with a limit takes a permit of its key before it is queued; without one it is
-- blocked, so that the claim never meets jobs that may not run.

-- The keys, and what each allows, as the last job that was enqueued with it said.
CREATE TABLE asyncjobs_limits (
  id         INTEGER PRIMARY KEY,
  name       TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  running    INTEGER,
  rate_jobs  INTEGER,
  rate_per   INTEGER,
  rate_burst INTEGER,
  ordered    INTEGER NOT NULL DEFAULT 0,
  stops      INTEGER NOT NULL DEFAULT 0,
  -- The instant from which on nothing of the rate is used up.
  spent      REAL    NOT NULL DEFAULT 0,
  -- Set while the key is closed by time: when to look again.
  opens_at   INTEGER,
  UNIQUE (name, key)
);
CREATE INDEX asyncjobs_limits_opening ON asyncjobs_limits (opens_at) WHERE opens_at IS NOT NULL;

-- One row for each job with a limit, as long as the job. The place says where it stands in its key's
-- line: "in" holds a permit, "ready" waits for one, "later" is not due yet, NULL is out.
CREATE TABLE asyncjobs_limited (
  seq      INTEGER PRIMARY KEY,
  limit_id INTEGER NOT NULL,
  place    TEXT,
  priority INTEGER NOT NULL,
  run_at   INTEGER NOT NULL
);
-- Who holds a permit, and who is next.
CREATE INDEX asyncjobs_limited_line
  ON asyncjobs_limited (limit_id, place, priority DESC, run_at, seq);
CREATE INDEX asyncjobs_limited_later ON asyncjobs_limited (run_at) WHERE place = 'later';

-- Blocked jobs by their reason: there are two of them now.
DROP INDEX asyncjobs_parked;
CREATE INDEX asyncjobs_parked
  ON asyncjobs_jobs (reason, task, priority DESC, run_at) WHERE state = 'blocked';
