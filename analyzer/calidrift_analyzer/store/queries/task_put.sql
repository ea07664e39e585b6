INSERT INTO tasks
VALUES (
    $task, make_timestamp_ns($started), make_timestamp_ns($ended), $succeeded, $sentence,
    CASE WHEN $succeeded THEN make_timestamp_ns($ended) END,
    1, CASE WHEN $succeeded THEN 0 ELSE 1 END
)
ON CONFLICT (task) DO UPDATE SET
    started = excluded.started, ended = excluded.ended, succeeded = excluded.succeeded,
    sentence = excluded.sentence,
    last_success = COALESCE(excluded.last_success, last_success),
    runs = runs + 1, failures = failures + excluded.failures
