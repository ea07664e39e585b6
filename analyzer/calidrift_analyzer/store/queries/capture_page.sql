-- Captured requests here and beside other processes, the newest first.
WITH listed AS (
    SELECT
        path AS name, process, model, profile, kind, epoch_ns(captured) AS captured_ns,
        segment, size, TRUE AS here
    FROM captures
    UNION ALL
    SELECT
        process || '/' || name AS name, process, model, profile, kind,
        epoch_ns(captured) AS captured_ns, segment, size, FALSE AS here
    FROM remote_captures
)

SELECT name, process, model, profile, kind, captured_ns, segment, size, here
FROM listed
WHERE model = $model
    AND ($before_ns IS NULL OR (captured_ns, name) < ($before_ns, $before_name))
ORDER BY captured_ns DESC, name DESC
LIMIT $limit
