-- Queues share the starts by weight, and let waiting jobs rise.
ALTER TABLE asyncjobs_queue_settings ADD COLUMN weight INTEGER;
-- Microseconds of waiting after which a job counts one priority higher.
ALTER TABLE asyncjobs_queue_settings ADD COLUMN ageing INTEGER;

-- How far queues are ahead of the one that had its turn last; those without a row are not. Only
-- where some queue has a weight.
CREATE TABLE asyncjobs_turns (
  queue TEXT    PRIMARY KEY,
  ahead INTEGER NOT NULL
) WITHOUT ROWID;
