SELECT
    s.segment,
    CAST(SUM(s.units) AS BIGINT) AS units,
    CAST(SUM(s.covered) AS BIGINT) AS covered
FROM segment_counts AS s
JOIN windows AS t USING (process_id, number)
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
    AND epoch_ns(t.ended) > $since
GROUP BY s.segment
ORDER BY s.segment
