INSERT INTO folds
SELECT
    make_timestamp_ns($now),
    $tier,
    (SELECT MAX(batch) FROM recorded AS r JOIN moving AS m USING (process_id, tier, number)),
    COUNT(*),
    COUNT(DISTINCT (process_id, target))
FROM moving
