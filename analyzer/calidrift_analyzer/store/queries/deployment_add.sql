INSERT INTO deployments
SELECT
    COALESCE(MAX(entry), 0) + 1, $model, $version, $previous, $action, $registry, $manifest,
    make_timestamp_ns($created)
FROM deployments
RETURNING entry
