-- What people set for queues at run time. A queue without a row has no limits; no row at all is the
-- usual case, which costs a claim nothing.
CREATE TABLE asyncjobs_queue_settings (
  queue      TEXT    PRIMARY KEY,
  paused     INTEGER NOT NULL DEFAULT 0,
  running    INTEGER,
  rate_jobs  INTEGER,
  rate_per   INTEGER,
  rate_burst INTEGER,
  -- The instant from which on nothing of the rate is used up: all of its state ("GCRA").
  spent      REAL    NOT NULL DEFAULT 0
) WITHOUT ROWID;
