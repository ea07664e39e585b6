INSERT INTO triggers
VALUES ($key, $source, $model, $status, make_timestamp_ns($seen), $job, $sentence)
ON CONFLICT (key) DO UPDATE SET
    status = excluded.status, seen = excluded.seen, job = excluded.job,
    sentence = excluded.sentence
