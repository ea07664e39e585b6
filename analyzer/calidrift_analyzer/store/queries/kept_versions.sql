SELECT id, model, version AS name, epoch_ns(created) AS created_ns, action AS word, document
FROM versions
WHERE model = $model AND ($id IS NULL OR id = $id) AND ($before IS NULL OR id < $before)
ORDER BY id DESC
LIMIT $limit
