-- What was compared with the reference model, in the order of arrival. Folded windows are looks of
-- their rollup; the test on these sums is valid at any of the looks.
SELECT
    epoch_ns(w.ended) AS end_ns,
    w.compared,
    w.ranked,
    w.agreed,
    w.noise_ppb,
    w.distance_ppb
FROM recorded AS w
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
    AND w.compared > 0
ORDER BY w.batch, w.ended, w.process_id, w.number
