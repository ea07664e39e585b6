-- How far each process is, and whether something may be missing.
SELECT
    process_id,
    MAX(number) AS last,
    SUM(coarse) = 0 AND SUM(windows) = MAX(number) + 1 AS whole
FROM recorded
GROUP BY process_id
