SELECT model, candidate, epoch_ns(created) AS created_ns, accepted, document
FROM validations
WHERE model = $model
ORDER BY id DESC
