-- The non-zero entries of the history; `look` is the row of its window in history_windows.sql.
WITH ordered AS (
    SELECT
        w.process_id,
        w.number,
        ROW_NUMBER() OVER (ORDER BY w.batch, w.ended, w.process_id, w.number) - 1 + (
            SELECT COUNT(*)
            FROM looks
            WHERE model = $model AND profile = $profile AND instrument = $instrument
        ) AS look
    FROM windows AS w
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
)
SELECT look, point, units, exceedances
FROM look_points
WHERE model = $model AND profile = $profile AND instrument = $instrument
UNION ALL
SELECT
    o.look,
    n.point,
    w.units,
    w.exceedances
FROM point_windows AS w
JOIN ordered AS o USING (process_id, number)
JOIN process_points AS n USING (process_id, position)
WHERE w.units > 0
