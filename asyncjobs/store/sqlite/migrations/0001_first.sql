-- The first schema. Every migration is one file, run in one transaction with the rise of the
-- version; a fresh database runs them all, so fresh equals migrated by construction.

-- Facts about the file itself: schema_version, database_id.
CREATE TABLE asyncjobs_meta (
  name  TEXT PRIMARY KEY,
  value NOT NULL
) WITHOUT ROWID;

-- One row, one piece of work. Small on purpose: a claim and an outcome rewrite it.
CREATE TABLE asyncjobs_jobs (
  seq                 INTEGER PRIMARY KEY,
  id                  TEXT    NOT NULL UNIQUE,
  task                TEXT    NOT NULL,
  queue               TEXT    NOT NULL,
  state               TEXT    NOT NULL DEFAULT 'queued',
  reason              TEXT,
  priority            INTEGER NOT NULL,
  run_at              INTEGER NOT NULL,
  created_at          INTEGER NOT NULL,
  started_at          INTEGER,
  finished_at         INTEGER,
  instance            TEXT,
  claim               INTEGER NOT NULL DEFAULT 0,
  attempt             INTEGER NOT NULL DEFAULT 0,
  crashes             INTEGER NOT NULL DEFAULT 0,
  snoozes             INTEGER NOT NULL DEFAULT 0,
  max_crashes         INTEGER NOT NULL DEFAULT 3,
  key                 TEXT,
  trigger             TEXT    NOT NULL,
  tags                TEXT,
  options             TEXT,
  cancel_reason       TEXT
);

-- What a claim walks: per queue and priority the due jobs, oldest due first. Holds the task, so
-- that jobs of other tasks are passed over without touching their rows.
CREATE INDEX asyncjobs_claimable
  ON asyncjobs_jobs (queue, priority DESC, run_at, seq, task) WHERE state = 'queued';
-- Jobs of tasks that the claiming process did not know, for those who do.
CREATE INDEX asyncjobs_parked
  ON asyncjobs_jobs (task, priority DESC, run_at) WHERE state = 'blocked' AND reason = 'unknown_task';
-- Finished jobs by their end: for lists and for retention.
CREATE INDEX asyncjobs_finished
  ON asyncjobs_jobs (state, finished_at) WHERE finished_at IS NOT NULL;
-- What runs, by who runs it: for rescue. As small as the slots of all processes.
CREATE INDEX asyncjobs_running ON asyncjobs_jobs (instance) WHERE state = 'running';
CREATE INDEX asyncjobs_retrying ON asyncjobs_jobs (seq) WHERE state = 'queued' AND attempt > 0;
CREATE INDEX asyncjobs_by_task ON asyncjobs_jobs (task);
CREATE INDEX asyncjobs_by_queue ON asyncjobs_jobs (queue);
-- Most jobs are triggered by the application itself: those are found without an index.
CREATE INDEX asyncjobs_by_trigger ON asyncjobs_jobs (trigger) WHERE trigger <> 'api';

-- Arguments and meta, apart from the row that changes. No row when there are none.
CREATE TABLE asyncjobs_payloads (
  seq       INTEGER PRIMARY KEY,
  arguments TEXT NOT NULL,
  meta      TEXT
);

-- Results other than null.
CREATE TABLE asyncjobs_results (
  seq    INTEGER PRIMARY KEY,
  result TEXT NOT NULL
);

-- Idempotency keys, each tied to its job's row.
CREATE TABLE asyncjobs_keys (
  key  TEXT    NOT NULL,
  task TEXT    NOT NULL,
  seq  INTEGER NOT NULL,
  PRIMARY KEY (key, task)
) WITHOUT ROWID;

CREATE TABLE asyncjobs_tags (
  tag TEXT    NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (tag, seq)
) WITHOUT ROWID;

-- Runs that failed or crashed. A run that completed is told by the job's own row.
CREATE TABLE asyncjobs_attempts (
  seq           INTEGER NOT NULL,
  claim         INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  event         TEXT    NOT NULL,
  reason        TEXT,
  instance      TEXT    NOT NULL,
  started_at    INTEGER NOT NULL,
  finished_at   INTEGER NOT NULL,
  error_type    TEXT    NOT NULL,
  error_message TEXT    NOT NULL,
  traceback     TEXT    NOT NULL,
  PRIMARY KEY (seq, claim)
);

-- Jobs by queue, task and state: one delta each per transaction, so that counting is free. The row
-- ('', '', 'accepted') counts the jobs ever accepted, which is the last seq given out: no seq is
-- used twice, and no further page is written to see to it.
CREATE TABLE asyncjobs_counts (
  queue TEXT    NOT NULL,
  task  TEXT    NOT NULL,
  state TEXT    NOT NULL,
  jobs  INTEGER NOT NULL,
  PRIMARY KEY (queue, task, state)
) WITHOUT ROWID;
INSERT INTO asyncjobs_counts (queue, task, state, jobs) VALUES ('', '', 'accepted', 0);

-- What happened, in commit order: one row per transaction and kind, [seq, claim, seq, claim, ...].
CREATE TABLE asyncjobs_journal (
  position INTEGER PRIMARY KEY,
  at       INTEGER NOT NULL,
  kind     TEXT    NOT NULL,
  jobs     TEXT    NOT NULL
);

-- Runner processes, present and past.
CREATE TABLE asyncjobs_instances (
  id         TEXT    PRIMARY KEY,
  pid        INTEGER NOT NULL,
  host       TEXT    NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at   INTEGER,
  ended_by   TEXT
) WITHOUT ROWID;
