SELECT point
FROM process_points
WHERE process_id = $process_id
ORDER BY position
