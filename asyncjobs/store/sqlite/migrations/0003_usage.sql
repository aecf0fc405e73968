-- What runs in workers have used and written, and how often coroutine jobs held the event loop: a
-- table aside, so that all other runs cost nothing for it.
CREATE TABLE asyncjobs_usage (
  seq         INTEGER NOT NULL,
  claim       INTEGER NOT NULL,
  cpu_seconds REAL,
  peak_rss    INTEGER,
  output      TEXT    NOT NULL,
  loop_blocks INTEGER NOT NULL,
  PRIMARY KEY (seq, claim)
);
