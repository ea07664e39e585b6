-- Without an end the row is the end of the mute before it.
INSERT INTO mutes (id, model, point, created, until, reason, author)
SELECT
    COALESCE(MAX(id), 0) + 1,
    $model,
    $point,
    make_timestamp_ns($created),
    make_timestamp_ns($until),
    $reason,
    $author
FROM mutes
