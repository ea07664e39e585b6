-- The same of single points.
WITH folded AS (
    SELECT
        p.model, p.profile, p.instrument, n.point,
        SUM(r.units) AS units, SUM(r.exceedances) AS exceedances
    FROM rollup_points AS r
    JOIN process_points AS n USING (process_id, position)
    JOIN processes AS p USING (process_id)
    GROUP BY p.model, p.profile, p.instrument, n.point
    HAVING SUM(r.units) > 0
),

looked AS (
    SELECT
        model, profile, instrument, point,
        SUM(units) AS units, SUM(exceedances) AS exceedances
    FROM look_points
    GROUP BY model, profile, instrument, point
)

SELECT model, point
FROM folded AS f
FULL JOIN looked AS l USING (model, profile, instrument, point)
WHERE (f.units, f.exceedances) IS DISTINCT FROM (l.units, l.exceedances)
ORDER BY model, point
