-- Every point that any process of the model listed, in the order of the latest listing.
SELECT n.point
FROM process_points AS n
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
GROUP BY n.point
ORDER BY MIN(n.position), n.point
