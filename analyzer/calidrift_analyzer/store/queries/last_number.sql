SELECT COALESCE(MAX(number), -1)
FROM windows
WHERE process_id = $process_id
