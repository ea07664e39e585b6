INSERT INTO look_points
SELECT
    l.model, l.profile, l.instrument, l.look, n.point, SUM(w.units), SUM(w.exceedances)
FROM point_windows AS w
JOIN looking AS l USING (process_id, number)
JOIN process_points AS n USING (process_id, position)
WHERE w.units > 0
GROUP BY l.model, l.profile, l.instrument, l.look, n.point
