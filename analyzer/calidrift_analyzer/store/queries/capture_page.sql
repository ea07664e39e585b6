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
    FROM remote_captures AS r
    -- Not those that were sent here meanwhile.
    WHERE NOT EXISTS (
        SELECT 1 FROM captures AS c
        WHERE c.process = r.process AND ends_with(c.path, '/' || r.name)
    )
)

SELECT name, process, model, profile, kind, captured_ns, segment, size, here
FROM listed
WHERE model = $model
    AND ($before_ns IS NULL OR (captured_ns, name) < ($before_ns, $before_name))
ORDER BY captured_ns DESC, name DESC
LIMIT $limit
