-- Sketches whose cells are out of order, doubled, off the grid or without a count.
SELECT DISTINCT process_id, number
FROM (
    SELECT process_id, number, item.cell AS cell, item.count AS count, before
    FROM (
        SELECT
            process_id,
            number,
            UNNEST(cells) AS item,
            UNNEST(LIST_PREPEND(NULL, cells[:-2])) AS before
        FROM recorded_points
        WHERE LEN(cells) > 0
    )
)
WHERE count <= 0 OR cell >= $size OR before.cell >= cell
ORDER BY process_id, number
