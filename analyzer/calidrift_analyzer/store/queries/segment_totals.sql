SELECT
    s.segment,
    CAST(SUM(s.units) AS BIGINT) AS units,
    CAST(SUM(s.covered) AS BIGINT) AS covered
FROM recorded_segments AS s
JOIN recorded AS t USING (process_id, tier, number)
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
    AND ($process IS NULL OR p.process = $process) AND epoch_ns(t.ended) > $since
    AND ($through IS NULL OR t.number <= $through)
GROUP BY s.segment
ORDER BY s.segment
