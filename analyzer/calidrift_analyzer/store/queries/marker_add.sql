INSERT INTO markers (id, model, happened, created, text, author)
SELECT
    COALESCE(MAX(id), 0) + 1,
    $model,
    make_timestamp_ns($happened),
    make_timestamp_ns($created),
    $text,
    $author
FROM markers
