-- What an archive has of one process, or nothing of what it is: the columns of `Record`.
SELECT number, first, windows, coarse
FROM recorded
WHERE process_id = $process_id
ORDER BY number
