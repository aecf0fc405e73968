-- What a runner process takes: {"queues": [...] or null, "slots": {executor: number}}; NULL for one
-- that takes no jobs.
ALTER TABLE asyncjobs_instances ADD COLUMN takes TEXT;
