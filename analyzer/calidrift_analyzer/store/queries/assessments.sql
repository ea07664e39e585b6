SELECT model, profile, epoch_ns(created) AS created_ns, verdict, document
FROM assessments
WHERE model = $model
ORDER BY id DESC
