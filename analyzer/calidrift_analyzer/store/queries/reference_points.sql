SELECT
    n.point,
    CAST(SUM(w.units_measured) AS BIGINT) AS units,
    CAST(SUM(w.units_not_finite) AS BIGINT) AS not_finite,
    MAX(w.unit_highest) AS unit_highest,
    MIN(w.lowest) AS lowest,
    MAX(w.highest) AS highest
FROM recorded_points AS w
JOIN reference_records AS r USING (process_id, tier, number)
JOIN process_points AS n USING (process_id, position)
WHERE r.taken AND w.units_measured > 0
GROUP BY n.point
ORDER BY n.point
