-- Newest first.
SELECT
    entry, model, version, previous, action, registry, manifest, epoch_ns(created) AS created_ns,
    state, attempts, epoch_ns(updated) AS updated_ns, sentence, output
FROM deployment_states
WHERE ($model IS NULL OR model = $model)
    AND ($version IS NULL OR version = $version)
    AND ($entry IS NULL OR entry = $entry)
    AND (NOT $open OR state IN ('pending', 'attempted'))
ORDER BY entry DESC
LIMIT $limit
