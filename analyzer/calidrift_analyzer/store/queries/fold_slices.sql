-- Spans of arrival, $span wide, that still hold records of a tier and are all older than $until.
SELECT epoch_ns(b.arrived) // $span AS slice, COUNT(*) AS records
FROM recorded AS r
JOIN batches AS b USING (batch)
WHERE r.tier = $source AND epoch_ns(b.arrived) < $until
GROUP BY slice
ORDER BY slice
