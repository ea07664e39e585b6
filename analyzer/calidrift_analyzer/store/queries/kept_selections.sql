-- What jobs selected: the step into recalibration carries it.
SELECT
    s.step AS id, j.model, CAST(j.job AS VARCHAR) AS name, epoch_ns(s.happened) AS created_ns,
    'selected' AS word, s.document
FROM job_steps AS s
JOIN jobs AS j USING (job)
WHERE j.model = $model AND s.state = 'recalibrating' AND s.event = 'entered'
    AND ($id IS NULL OR s.step = $id) AND ($before IS NULL OR s.step < $before)
ORDER BY s.step DESC
LIMIT $limit
