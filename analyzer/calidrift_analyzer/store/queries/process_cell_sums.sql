SELECT
    e.position,
    e.item.cell AS cell,
    CAST(SUM(e.item.count) AS BIGINT) AS count
FROM (
    SELECT position, UNNEST(cells) AS item
    FROM point_windows
    WHERE process_id = $process_id
) AS e
GROUP BY e.position, e.item.cell
