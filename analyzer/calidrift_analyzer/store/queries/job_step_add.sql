INSERT INTO job_steps
SELECT
    COALESCE(MAX(step), 0) + 1, $job, $state, $event, $actor, make_timestamp_ns($at),
    $sentence, $document
FROM job_steps
