-- Processes with more windows than numbers.
SELECT process_id, MAX(number) AS number
FROM recorded
GROUP BY process_id
HAVING SUM(windows) > MAX(number) + 1
ORDER BY process_id
