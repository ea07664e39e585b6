-- How a process began, and the first of its records with its arrival: what it may have come to since.
SELECT
    epoch_ns(p.started) AS started_ns,
    p.window_seconds,
    r.number,
    epoch_ns(b.arrived) AS arrived_ns
FROM processes AS p
JOIN recorded AS r USING (process_id)
JOIN batches AS b USING (batch)
WHERE p.process = $process AND p.model = $model AND p.profile = $profile
ORDER BY r.number
LIMIT 1
