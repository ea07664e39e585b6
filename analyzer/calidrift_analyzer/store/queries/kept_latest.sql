-- The newest assessment of a model; what is left of the profile that it was under.
SELECT id, model, profile, epoch_ns(created) AS created_ns, verdict, document
FROM assessments
WHERE model = $model
ORDER BY id DESC
LIMIT 1
