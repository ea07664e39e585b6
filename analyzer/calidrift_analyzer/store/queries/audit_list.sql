SELECT entry, epoch_ns(happened) AS at_ns, actor, action, model, subject, outcome, sentence
FROM audit
WHERE ($model IS NULL OR model = $model) AND ($before IS NULL OR entry < $before)
ORDER BY entry DESC
LIMIT $limit
