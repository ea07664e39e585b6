-- Tiers that do not hold what the ledger says moved into them, less what moved on. Rows of the
-- ledger that an earlier version wrote say nothing; then the tiers beside them are left out.
WITH tiers AS (
    SELECT UNNEST([1, 2, 3, 4]) AS tier
),

moved AS (
    SELECT
        tier,
        COUNT(*) FILTER (cells IS NULL) AS silent,
        SUM(windows) AS windows, SUM(seen) AS seen, SUM(elements) AS elements, SUM(cells) AS cells
    FROM folds
    GROUP BY tier
),

heads AS (
    SELECT tier, SUM(windows) AS windows, SUM(seen) AS seen
    FROM rollups
    GROUP BY tier
),

points AS (
    SELECT tier, SUM(elements) AS elements
    FROM rollup_points
    GROUP BY tier
),

cells AS (
    SELECT tier, SUM(item.count) AS cells
    FROM (SELECT tier, UNNEST(cells) AS item FROM rollup_points)
    GROUP BY tier
)

SELECT
    CASE tier WHEN 1 THEN 'minutes' WHEN 2 THEN 'hours' WHEN 3 THEN 'days' ELSE 'lives' END AS name,
    tier
FROM tiers AS t
LEFT JOIN moved AS i USING (tier)
LEFT JOIN moved AS o ON o.tier = t.tier + 1
LEFT JOIN heads AS h USING (tier)
LEFT JOIN points AS p USING (tier)
LEFT JOIN cells AS c USING (tier)
WHERE COALESCE(i.silent, 0) + COALESCE(o.silent, 0) = 0 AND (
    COALESCE(h.windows, 0) <> COALESCE(i.windows, 0) - COALESCE(o.windows, 0)
    OR COALESCE(h.seen, 0) <> COALESCE(i.seen, 0) - COALESCE(o.seen, 0)
    OR COALESCE(p.elements, 0) <> COALESCE(i.elements, 0) - COALESCE(o.elements, 0)
    OR COALESCE(c.cells, 0) <> COALESCE(i.cells, 0) - COALESCE(o.cells, 0)
)
ORDER BY tier
