SELECT COUNT(*), COUNT(DISTINCT (process_id, target))
FROM moving
