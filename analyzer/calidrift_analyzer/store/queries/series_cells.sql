-- Sketches of points by slices of time; see series.sql.
WITH slices AS (
    SELECT r.process_id, r.tier, r.number, epoch_ns(r.ended) // $step AS slice
    FROM recorded AS r
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
        AND epoch_ns(r.ended) > $since AND epoch_ns(r.ended) <= $until
),

occupied AS (
    SELECT n.point, s.slice, UNNEST(w.cells) AS pair
    FROM recorded_points AS w
    JOIN slices AS s USING (process_id, tier, number)
    JOIN process_points AS n USING (process_id, position)
    WHERE $point IS NULL OR n.point = $point
)

SELECT point, slice, pair.cell AS cell, CAST(SUM(pair.count) AS BIGINT) AS count
FROM occupied
GROUP BY point, slice, pair.cell
ORDER BY point, slice
