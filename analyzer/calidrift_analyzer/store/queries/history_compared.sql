-- What was compared with the reference model; `look` is the row of its window in
-- history_windows.sql.
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
SELECT look, compared, ranked, agreed, noise_ppb
FROM look_losses
WHERE model = $model AND profile = $profile AND instrument = $instrument
UNION ALL
SELECT o.look, w.compared, w.ranked, w.agreed, w.noise_ppb
FROM window_losses AS w
JOIN ordered AS o USING (process_id, number)
ORDER BY look
