-- What has been recorded at all, the most recent first.
SELECT
    p.model,
    p.profile,
    p.instrument,
    COUNT(DISTINCT w.process_id) AS processes,
    MAX(epoch_ns(w.ended)) AS last_ns
FROM processes AS p
JOIN recorded AS w USING (process_id)
GROUP BY p.model, p.profile, p.instrument
ORDER BY last_ns DESC, p.model, p.profile, p.instrument
