-- How many recalibrations ended how, ever.
SELECT model, state, COUNT(*) AS jobs
FROM job_states
WHERE kind = 'recalibration'
    AND state IN ('promoted', 'refused', 'failed', 'cancelled')
GROUP BY model, state
ORDER BY model, state
