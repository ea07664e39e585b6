-- What moves, and what is in it: a life that is taken into a longer one has been counted before.
INSERT INTO folds BY NAME
WITH sources AS (
    SELECT r.batch, r.windows, r.seen, m.tier <> $tier AS fresh
    FROM recorded AS r
    JOIN moving AS m USING (process_id, tier, number)
),

points AS (
    SELECT r.elements, r.cells
    FROM recorded_points AS r
    JOIN moving AS m USING (process_id, tier, number)
    WHERE m.tier <> $tier
)

SELECT
    make_timestamp_ns($now) AS folded,
    $tier AS tier,
    (SELECT MAX(batch) FROM sources) AS through,
    COUNT(*) AS records,
    COUNT(DISTINCT (process_id, target)) AS rollups,
    (SELECT COALESCE(SUM(windows), 0) FROM sources WHERE fresh) AS windows,
    (SELECT COALESCE(SUM(seen), 0) FROM sources WHERE fresh) AS seen,
    (SELECT COALESCE(SUM(elements), 0) FROM points) AS elements,
    (
        SELECT COALESCE(SUM(e.item.count), 0)
        FROM (SELECT UNNEST(cells) AS item FROM points) AS e
    ) AS cells
FROM moving
