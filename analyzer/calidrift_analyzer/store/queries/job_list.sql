-- Newest first; $before is the cursor of the page before.
SELECT
    job, model, kind, trigger, cause, actor, epoch_ns(created) AS created_ns, state,
    epoch_ns(updated) AS updated_ns, sentence, attempts, approved_by, cancel_requested
FROM job_states
WHERE ($model IS NULL OR model = $model)
    AND ($job IS NULL OR job = $job)
    AND ($before IS NULL OR job < $before)
    AND ($open IS NULL OR (
        state IN ('queued', 'selecting', 'recalibrating', 'validating', 'awaiting_approval', 'canary')
    ) = $open)
ORDER BY job DESC
LIMIT $limit
