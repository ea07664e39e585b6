-- Windows of canaries and of their peers since a moment, in the order in which they arrived. Units
-- with another class count as in look_losses: only of windows that count by classes.
SELECT
    p.profile = $canary AS canary,
    epoch_ns(r.started) AS started_ns,
    r.units,
    r.units - LEAST(r.units_covered, r.units) AS outside,
    CASE WHEN r.ranked = r.compared THEN r.compared ELSE 0 END AS compared,
    CASE
        WHEN r.ranked = r.compared THEN r.compared - LEAST(r.agreed, r.compared) ELSE 0
    END AS disagreed,
    r.sampled,
    LEAST(r.error_sample + r.error_tap + r.error_shadow, r.sampled) AS errors
FROM recorded AS r
JOIN processes AS p USING (process_id)
WHERE p.model = $model
    AND p.profile IN ($canary, $peers)
    AND r.started >= make_timestamp_ns($since)
ORDER BY r.batch, r.ended, r.process_id, r.number
