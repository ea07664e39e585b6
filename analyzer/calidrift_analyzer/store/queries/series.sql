-- Points by slices of time. A record counts in the slice in which it ends. Summed by position before
-- names are looked at: a tenth of the rows are left then.
WITH slices AS (
    SELECT r.process_id, r.tier, r.number, epoch_ns(r.ended) // $step AS slice
    FROM recorded AS r
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
        AND epoch_ns(r.ended) > $since AND epoch_ns(r.ended) <= $until
),

summed AS (
    SELECT
        w.process_id,
        w.position,
        s.slice,
        SUM(w.units) AS units,
        SUM(w.exceedances) AS exceedances,
        SUM(w.clipped_energy) AS clipped_energy,
        SUM(w.energy) AS energy,
        MIN(w.lowest) AS lowest,
        MAX(w.highest) AS highest
    FROM recorded_points AS w
    JOIN slices AS s USING (process_id, tier, number)
    GROUP BY w.process_id, w.position, s.slice
)

SELECT
    n.point,
    s.slice,
    CAST(SUM(s.units) AS BIGINT) AS units,
    CAST(SUM(s.exceedances) AS BIGINT) AS exceedances,
    SUM(s.clipped_energy) AS clipped_energy,
    SUM(s.energy) AS energy,
    MIN(s.lowest) AS lowest,
    MAX(s.highest) AS highest
FROM summed AS s
JOIN process_points AS n USING (process_id, position)
WHERE $point IS NULL OR n.point = $point
GROUP BY n.point, s.slice
ORDER BY n.point, s.slice
