-- Units of each segment in the records that were taken.
SELECT s.segment, CAST(SUM(s.units) AS BIGINT) AS units
FROM recorded_segments AS s
JOIN reference_records AS r USING (process_id, tier, number)
WHERE r.taken AND s.units > 0
GROUP BY s.segment
ORDER BY s.segment
