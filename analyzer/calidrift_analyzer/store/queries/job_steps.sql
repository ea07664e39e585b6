SELECT step, job, state, event, actor, epoch_ns(happened) AS at_ns, sentence, document
FROM job_steps
WHERE job = $job
ORDER BY step
