SELECT
    path,
    process,
    model,
    profile,
    kind,
    epoch_ns(captured) AS captured_ns,
    segment,
    size
FROM captures
WHERE $model IS NULL OR model = $model
ORDER BY captured, path
