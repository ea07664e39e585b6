-- Units per segment and look; `look` is the row of its window in history_windows.sql.
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
SELECT segment, look, units, covered, place
FROM look_segments
WHERE model = $model AND profile = $profile AND instrument = $instrument
UNION ALL
SELECT
    s.segment,
    o.look,
    s.units,
    s.covered,
    0 AS place
FROM segment_counts AS s
JOIN ordered AS o USING (process_id, number)
WHERE s.units > 0
ORDER BY look, place, segment
