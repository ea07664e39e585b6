SELECT id, model, profile AS name, epoch_ns(created) AS created_ns, verdict AS word, document
FROM assessments
WHERE model = $model AND ($id IS NULL OR id = $id) AND ($before IS NULL OR id < $before)
ORDER BY id DESC
LIMIT $limit
