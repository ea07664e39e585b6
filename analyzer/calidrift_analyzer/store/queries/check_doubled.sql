SELECT process_id, number
FROM recorded
GROUP BY process_id, number
HAVING COUNT(*) > 1
ORDER BY process_id, number
