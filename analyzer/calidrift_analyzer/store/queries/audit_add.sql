INSERT INTO audit
SELECT
    COALESCE(MAX(entry), 0) + 1, make_timestamp_ns($at), $actor, $action, $model, $subject,
    $outcome, $sentence
FROM audit
