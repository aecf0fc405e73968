-- What people did by hand: one row a bulk operation, however many slices it took, and one for each
-- single operation that named its actor.
CREATE TABLE asyncjobs_audit (
  position INTEGER PRIMARY KEY,
  id       TEXT    NOT NULL UNIQUE,
  at       INTEGER NOT NULL,
  actor    TEXT,
  action   TEXT    NOT NULL,
  what     TEXT    NOT NULL,
  matched  INTEGER NOT NULL,
  changed  INTEGER NOT NULL
);
