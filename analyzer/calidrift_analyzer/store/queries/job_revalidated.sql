-- How the last re-validation of each model ended; one that somebody cancelled says nothing.
SELECT model, arg_max(state, job) AS state, epoch_ns(arg_max(updated, job)) AS ended_ns
FROM job_states
WHERE kind = 'revalidation' AND state IN ('confirmed', 'refused', 'failed')
GROUP BY model
ORDER BY model
