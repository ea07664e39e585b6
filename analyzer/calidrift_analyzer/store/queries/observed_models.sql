-- What has been recorded at all, the most recent first. A window is as recent as its end, but never
-- more than its arrival: the clock of a sender may be ahead.
SELECT
    p.model,
    p.profile,
    p.instrument,
    COUNT(DISTINCT w.process_id) AS processes,
    MAX(epoch_ns(w.ended)) AS last_ns,
    MAX(epoch_ns(COALESCE(b.arrived, w.ended))) AS arrived_ns
FROM processes AS p
JOIN recorded AS w USING (process_id)
LEFT JOIN batches AS b USING (batch)
GROUP BY p.model, p.profile, p.instrument
ORDER BY
    MAX(LEAST(w.ended, COALESCE(b.arrived, w.ended))) DESC,
    last_ns DESC,
    p.model,
    p.profile,
    p.instrument
