-- Beside idempotency keys, those of unique jobs: they begin with char(1), and are held for a time.

-- row: as long as the job's row; queued, unfinished; window: until an instant.
ALTER TABLE asyncjobs_keys ADD COLUMN held TEXT NOT NULL DEFAULT 'row';
-- Of a debounced job: up to where it is pushed back.
ALTER TABLE asyncjobs_keys ADD COLUMN until INTEGER;
