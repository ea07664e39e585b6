-- Recalibrations of a model: how many were begun since a moment, and when the last one came to an end.
-- One that was cancelled before it began counts for neither.
-- Where the clock was set back since, a job lies in the future. It was ordered before everything that
-- the audit noted behind it, and before now: the earliest of these is the latest that can be true.
WITH lives AS (
    SELECT
        job,
        ARG_MAX(state, step) AS state,
        ARG_MAX(epoch_ns(happened), step) AS updated_ns,
        BOOL_OR(state NOT IN ('queued', 'cancelled')) AS began
    FROM job_steps
    GROUP BY job
),

noted AS (
    SELECT
        entry,
        model,
        subject,
        MIN(epoch_ns(happened)) OVER (
            ORDER BY entry ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        ) AS latest_ns
    FROM audit
),

orders AS (
    SELECT subject, ARG_MIN(latest_ns, entry) AS latest_ns
    FROM noted
    WHERE model = $model
    GROUP BY subject
)

SELECT
    COUNT(*) FILTER (
        WHERE LEAST(epoch_ns(j.created), COALESCE(o.latest_ns, $now), $now) >= $since
    ) AS begun,
    MAX(l.updated_ns) FILTER (
        WHERE l.state IN ('promoted', 'refused', 'failed', 'cancelled')
    ) AS ended_ns
FROM jobs AS j
JOIN lives AS l ON l.job = j.job
LEFT JOIN orders AS o ON o.subject = 'job ' || j.job
WHERE j.model = $model AND j.kind = 'recalibration' AND l.began
