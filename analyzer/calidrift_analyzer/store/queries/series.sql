-- Points by slices of time. A record counts in the slice in which it ends.
WITH slices AS (
    SELECT r.process_id, r.tier, r.number, epoch_ns(r.ended) // $step AS slice
    FROM recorded AS r
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
        AND epoch_ns(r.ended) > $since AND epoch_ns(r.ended) <= $until
)
SELECT
    n.point,
    s.slice,
    CAST(SUM(w.units) AS BIGINT) AS units,
    CAST(SUM(w.exceedances) AS BIGINT) AS exceedances,
    SUM(w.clipped_energy) AS clipped_energy,
    SUM(w.energy) AS energy,
    MIN(w.lowest) AS lowest,
    MAX(w.highest) AS highest
FROM recorded_points AS w
JOIN slices AS s USING (process_id, tier, number)
JOIN process_points AS n USING (process_id, position)
WHERE $point IS NULL OR n.point = $point
GROUP BY n.point, s.slice
ORDER BY n.point, s.slice
