INSERT INTO freezes
SELECT
    COALESCE(MAX(entry), 0) + 1, $model, $frozen, $actor, make_timestamp_ns($at), $sentence
FROM freezes
