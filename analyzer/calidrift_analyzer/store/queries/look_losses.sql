INSERT INTO look_losses
SELECT
    l.model, l.profile, l.instrument, l.look,
    SUM(w.compared), SUM(w.ranked), SUM(w.agreed), SUM(w.noise_ppb)
FROM window_losses AS w
JOIN looking AS l USING (process_id, number)
GROUP BY l.model, l.profile, l.instrument, l.look
