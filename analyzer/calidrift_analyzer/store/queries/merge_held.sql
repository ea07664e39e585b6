SELECT COALESCE(SUM(windows), 0)
FROM recorded
WHERE process_id = $process_id AND number <= $through
