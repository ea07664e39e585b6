SELECT
    n.point,
    e.item.cell AS cell,
    CAST(SUM(e.item.count) AS BIGINT) AS count
FROM (
    SELECT w.process_id, w.position, UNNEST(w.cells) AS item
    FROM recorded_points AS w
    JOIN reference_records AS r USING (process_id, tier, number)
    WHERE r.taken AND w.units_measured > 0
) AS e
JOIN process_points AS n USING (process_id, position)
GROUP BY n.point, e.item.cell
