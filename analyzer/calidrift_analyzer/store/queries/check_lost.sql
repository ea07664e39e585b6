-- Processes that may lack windows: fewer of them than numbers behind the last coarse one, which
-- stands for whatever is missing before it.
WITH coarse AS (
    SELECT process_id, COALESCE(MAX(number) FILTER (coarse > 0), -1) AS number
    FROM recorded
    GROUP BY process_id
)
SELECT recorded.process_id
FROM recorded
JOIN coarse USING (process_id)
WHERE recorded.number > coarse.number
GROUP BY recorded.process_id
HAVING SUM(recorded.windows) < MAX(recorded.number) - ANY_VALUE(coarse.number)
ORDER BY recorded.process_id
