SELECT
    task, epoch_ns(started) AS started_ns, epoch_ns(ended) AS ended_ns, succeeded, sentence,
    epoch_ns(last_success) AS last_success_ns, runs, failures
FROM tasks
ORDER BY task
