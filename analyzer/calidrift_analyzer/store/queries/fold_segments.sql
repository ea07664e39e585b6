INSERT INTO rollup_segments
SELECT m.process_id, $tier AS tier, m.target AS number, r.segment, SUM(r.units), SUM(r.covered)
FROM recorded_segments AS r
JOIN moving AS m USING (process_id, tier, number)
GROUP BY m.process_id, m.target, r.segment
