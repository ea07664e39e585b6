-- The last version of a model that was tried on canaries, and where the job of it stands.
SELECT s.document, v.state, epoch_ns(v.updated) AS updated_ns
FROM job_steps AS s
JOIN job_states AS v USING (job)
WHERE v.model = $model AND s.state = 'canary' AND s.event = 'entered'
ORDER BY s.step DESC
LIMIT 1
