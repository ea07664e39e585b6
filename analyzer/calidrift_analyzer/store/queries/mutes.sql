SELECT
    model,
    point,
    epoch_ns(created) AS created_ns,
    epoch_ns(until) AS until_ns,
    reason,
    author
FROM mutes
WHERE $model IS NULL OR model = $model
ORDER BY id
