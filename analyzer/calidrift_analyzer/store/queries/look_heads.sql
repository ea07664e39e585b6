INSERT INTO looks
SELECT
    l.model, l.profile, l.instrument, l.look, ARG_MAX(w.ended, l.place), SUM(w.holds),
    SUM(w.seen), SUM(w.units), SUM(w.units_covered)
FROM windows AS w
JOIN looking AS l USING (process_id, number)
GROUP BY l.model, l.profile, l.instrument, l.look
