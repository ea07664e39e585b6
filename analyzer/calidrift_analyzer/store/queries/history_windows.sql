-- Windows in the order in which sequential tests look at them: that of arrival, then of time.
SELECT
    epoch_ns(w.ended) AS end_ns,
    w.seen,
    w.units
FROM windows AS w
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
ORDER BY w.batch, w.ended, w.process_id, w.number
