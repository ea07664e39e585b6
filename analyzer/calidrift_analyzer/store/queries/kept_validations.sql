SELECT
    id, model, candidate AS name, epoch_ns(created) AS created_ns,
    CASE WHEN accepted THEN 'accepted' ELSE 'refused' END AS word, document
FROM validations
WHERE model = $model AND ($id IS NULL OR id = $id) AND ($before IS NULL OR id < $before)
ORDER BY id DESC
LIMIT $limit
