-- The place keeps the order of first appearance, which the thresholds of segments follow.
INSERT INTO look_segments
SELECT
    model, profile, instrument, look,
    ROW_NUMBER() OVER (
        PARTITION BY model, profile, instrument, look ORDER BY first_place, segment
    ) AS place,
    segment, units, covered
FROM (
    SELECT
        l.model, l.profile, l.instrument, l.look, s.segment,
        MIN(l.place) AS first_place, SUM(s.units) AS units, SUM(s.covered) AS covered
    FROM segment_counts AS s
    JOIN looking AS l USING (process_id, number)
    WHERE s.units > 0
    GROUP BY l.model, l.profile, l.instrument, l.look, s.segment
)
