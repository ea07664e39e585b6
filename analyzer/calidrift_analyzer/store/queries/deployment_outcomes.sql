-- How many moves ended how, ever.
SELECT model, state, COUNT(*) AS moves
FROM deployment_states
WHERE state IN ('delivered', 'failed', 'superseded')
GROUP BY model, state
ORDER BY model, state
