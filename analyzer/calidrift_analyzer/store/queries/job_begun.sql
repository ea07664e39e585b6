-- Recalibrations of a model: how many were begun since a moment, and when the last one came to an end.
-- One that was cancelled before it began counts for neither.
WITH lives AS (
    SELECT
        job,
        ARG_MAX(state, step) AS state,
        ARG_MAX(epoch_ns(happened), step) AS updated_ns,
        BOOL_OR(state NOT IN ('queued', 'cancelled')) AS began
    FROM job_steps
    GROUP BY job
)

SELECT
    COUNT(*) FILTER (WHERE epoch_ns(j.created) >= $since) AS begun,
    MAX(l.updated_ns) FILTER (
        WHERE l.state IN ('promoted', 'refused', 'failed', 'cancelled')
    ) AS ended_ns
FROM jobs AS j
JOIN lives AS l ON l.job = j.job
WHERE j.model = $model AND j.kind = 'recalibration' AND l.began
