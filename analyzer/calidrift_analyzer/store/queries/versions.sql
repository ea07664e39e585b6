SELECT model, version, action, epoch_ns(created) AS created_ns, profile, document
FROM versions
WHERE model = $model
ORDER BY id DESC
