-- What runs in workers have used and written: a table aside, so that jobs of other executors cost
-- nothing for it.
CREATE TABLE asyncjobs_usage (
  seq         INTEGER NOT NULL,
  claim       INTEGER NOT NULL,
  cpu_seconds REAL    NOT NULL,
  peak_rss    INTEGER NOT NULL,
  output      TEXT    NOT NULL,
  PRIMARY KEY (seq, claim)
);
