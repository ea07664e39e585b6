-- Marked by people, and by the moves of the version pointer, the latest first.
SELECT model, at_ns, text, kind, author, created_ns
FROM (
    SELECT
        model,
        epoch_ns(happened) AS at_ns,
        text,
        'marked' AS kind,
        author,
        epoch_ns(created) AS created_ns,
        id
    FROM markers
    UNION ALL
    SELECT
        model,
        epoch_ns(created) AS at_ns,
        version AS text,
        action AS kind,
        NULL AS author,
        epoch_ns(created) AS created_ns,
        id
    FROM versions
    WHERE action IN ('promoted', 'rolled_back')
)
WHERE $model IS NULL OR model = $model
ORDER BY at_ns DESC, kind, id DESC
