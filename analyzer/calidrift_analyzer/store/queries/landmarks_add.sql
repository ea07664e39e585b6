-- Looks of history_windows.sql by their rows; those of windows that were folded stay anyway.
INSERT INTO landmarks
WITH ordered AS (
    SELECT
        w.process_id,
        w.number,
        ROW_NUMBER() OVER (ORDER BY w.batch, w.ended, w.process_id, w.number) - 1 + (
            SELECT COUNT(*)
            FROM looks
            WHERE model = $model AND profile = $profile AND instrument = $instrument
        ) AS look
    FROM windows AS w
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
)
SELECT process_id, number
FROM ordered
WHERE look IN (SELECT UNNEST(CAST($looks AS BIGINT[])))
EXCEPT
SELECT process_id, number
FROM landmarks
