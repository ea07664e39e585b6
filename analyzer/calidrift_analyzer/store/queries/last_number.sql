SELECT COALESCE(MAX(number), -1)
FROM recorded
WHERE process_id = $process_id
