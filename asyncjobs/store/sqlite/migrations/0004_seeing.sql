-- What can be watched: progress, logs, events, subscribers, files that jobs returned.

-- What jobs last said of how far they are. Apart from the job's row, which it must not rewrite five
-- times a second. The number rises with every value of a run.
CREATE TABLE asyncjobs_progress (
  seq    INTEGER PRIMARY KEY,
  claim  INTEGER NOT NULL,
  number INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  done   NOT NULL,
  total,
  note   TEXT
);

-- What an event says beside its kind: for progress [[done, total, note], ...], as many as jobs.
ALTER TABLE asyncjobs_journal ADD COLUMN detail TEXT;
-- Events of runs that go on: there are many of them, and they leave the journal early.
CREATE INDEX asyncjobs_passing ON asyncjobs_journal (at) WHERE kind IN ('progress', 'logged');
-- How far the beginning of the journal was pruned: events up to there cannot be replayed.
INSERT INTO asyncjobs_meta (name, value)
SELECT 'journal_pruned', ifnull(min(position), 1) - 1 FROM asyncjobs_journal;

-- Names of jobs that are deleted, for as long as the journal speaks of them.
CREATE TABLE asyncjobs_gone (
  seq   INTEGER PRIMARY KEY,
  id    TEXT    NOT NULL,
  task  TEXT    NOT NULL,
  queue TEXT    NOT NULL,
  at    INTEGER NOT NULL
);
CREATE INDEX asyncjobs_gone_id ON asyncjobs_gone (id);
CREATE INDEX asyncjobs_gone_at ON asyncjobs_gone (at);

-- What jobs logged, numbered within each run.
CREATE TABLE asyncjobs_logs (
  seq     INTEGER NOT NULL,
  claim   INTEGER NOT NULL,
  number  INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  level   TEXT    NOT NULL,
  logger  TEXT    NOT NULL,
  text    TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  PRIMARY KEY (seq, claim, number)
);
-- The last line of each job, how much of its log is kept, and how many lines are not.
CREATE TABLE asyncjobs_log_totals (
  seq     INTEGER PRIMARY KEY,
  claim   INTEGER NOT NULL,
  last    INTEGER NOT NULL,
  lines   INTEGER NOT NULL,
  bytes   INTEGER NOT NULL,
  dropped INTEGER NOT NULL
);

-- Files that jobs returned. A file whose job is gone is named until it is gone as well.
CREATE TABLE asyncjobs_files (
  file TEXT    PRIMARY KEY,
  seq  INTEGER NOT NULL,
  gone INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX asyncjobs_files_by_seq ON asyncjobs_files (seq);
CREATE INDEX asyncjobs_files_gone ON asyncjobs_files (gone) WHERE gone <> 0;

-- Named subscribers: the place in the journal up to which each has acknowledged.
CREATE TABLE asyncjobs_subscribers (
  name     TEXT    PRIMARY KEY,
  position INTEGER NOT NULL,
  place    INTEGER NOT NULL,
  at       INTEGER NOT NULL
) WITHOUT ROWID;
