-- Which records move, and into which rollup: one per process, span of time and part between moments
-- that somebody sums from. Aligned windows end on the last moment of a span. The life of a process
-- (tier 4) takes in the one that is there already, unless that reaches further: what another archive
-- still had of a hole in the numbers gets a row of its own.
CREATE OR REPLACE TEMP TABLE moving AS
WITH chosen AS (
    SELECT
        r.process_id,
        r.tier,
        r.number,
        CASE WHEN $tier = 4 THEN 0 ELSE (epoch_ns(r.ended) - 1) // $span END AS bucket,
        (
            SELECT COUNT(*)
            FROM moments AS m
            WHERE m.model = p.model AND m.profile = p.profile AND m.moment < r.ended
        ) AS part
    FROM recorded AS r
    JOIN processes AS p USING (process_id)
    JOIN batches AS b USING (batch)
    WHERE ($tier = 4 AND r.tier = 4)
        OR (r.tier = $source AND epoch_ns(b.arrived) >= $from AND epoch_ns(b.arrived) < $until)
)
SELECT
    process_id,
    tier,
    number,
    MAX(number) FILTER (tier = $source) OVER (PARTITION BY process_id, bucket, part) AS target
FROM chosen
QUALIFY number <= target
