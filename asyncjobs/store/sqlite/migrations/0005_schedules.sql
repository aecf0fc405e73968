-- Schedules: what makes jobs by time.

CREATE TABLE asyncjobs_schedules (
  name       TEXT    PRIMARY KEY,
  origin     TEXT    NOT NULL,            -- code, or runtime
  plan       TEXT    NOT NULL,
  job        TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  next_at    INTEGER,
  waiting_at INTEGER,
  paused     INTEGER NOT NULL DEFAULT 0,
  ended_at   INTEGER,
  removed_at INTEGER,                     -- no longer in the code; comes back as it was
  runs       INTEGER NOT NULL DEFAULT 0,
  missed     INTEGER NOT NULL DEFAULT 0,
  skipped    INTEGER NOT NULL DEFAULT 0,
  last_at    INTEGER,
  last_seq   INTEGER,
  last_id    TEXT,
  last_state TEXT
);
-- What a tick asks for: whose time has come, and when the next one's comes.
CREATE INDEX asyncjobs_schedules_due ON asyncjobs_schedules (next_at)
WHERE paused = 0 AND removed_at IS NULL AND next_at IS NOT NULL;
-- Those that came from code, for the next start to compare with.
CREATE INDEX asyncjobs_schedules_of_code ON asyncjobs_schedules (name) WHERE origin = 'code';

-- Which processes have a schedule in their code: one that none of them has any more goes.
CREATE TABLE asyncjobs_declarers (
  name     TEXT NOT NULL,
  instance TEXT NOT NULL,
  PRIMARY KEY (name, instance)
) WITHOUT ROWID;
