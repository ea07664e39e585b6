-- Merged sketches: integer sums per point and cell, so the same as a merge in numpy, bit for bit.
SELECT
    e.point,
    e.item.cell AS cell,
    CAST(SUM(e.item.count) AS BIGINT) AS count
FROM (
    SELECT n.point, UNNEST(w.cells) AS item
    FROM point_windows AS w
    JOIN windows AS t USING (process_id, number)
    JOIN process_points AS n USING (process_id, position)
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
        AND epoch_ns(t.ended) > $since
) AS e
GROUP BY e.point, e.item.cell
