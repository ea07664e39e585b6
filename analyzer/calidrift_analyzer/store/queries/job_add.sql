INSERT INTO jobs
SELECT
    COALESCE(MAX(job), 0) + 1, $model, $kind, $trigger, $cause, $actor,
    make_timestamp_ns($created)
FROM jobs
RETURNING job
