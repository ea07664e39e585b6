-- Looks in the order in which sequential tests make them: those of windows that were folded, then
-- windows by arrival, then by time.
WITH recent AS (
    SELECT
        w.ended,
        w.seen,
        w.units,
        w.units_covered AS covered,
        ROW_NUMBER() OVER (ORDER BY w.batch, w.ended, w.process_id, w.number) AS place
    FROM windows AS w
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
)
SELECT epoch_ns(ended) AS end_ns, seen, units, covered, 0 AS recent, look
FROM looks
WHERE model = $model AND profile = $profile AND instrument = $instrument
UNION ALL
SELECT epoch_ns(ended) AS end_ns, seen, units, covered, 1 AS recent, place AS look
FROM recent
ORDER BY recent, look
