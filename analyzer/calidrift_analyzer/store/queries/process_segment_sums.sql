SELECT
    segment,
    CAST(SUM(units) AS BIGINT) AS units,
    CAST(SUM(covered) AS BIGINT) AS covered
FROM segment_counts
WHERE process_id = $process_id
GROUP BY segment
ORDER BY segment
