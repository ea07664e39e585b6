-- Streams of which the looks that were joined and the rollups that took their windows in differ;
-- the two are written by different statements out of the same windows, and never changed again.
WITH folded AS (
    SELECT
        p.model, p.profile, p.instrument,
        SUM(r.seen) AS seen, SUM(r.units) AS units, SUM(r.units_covered) AS covered,
        SUM(r.compared) AS compared
    FROM rollups AS r
    JOIN processes AS p USING (process_id)
    GROUP BY p.model, p.profile, p.instrument
),

looked AS (
    SELECT
        model, profile, instrument,
        SUM(seen) AS seen, SUM(units) AS units, SUM(covered) AS covered
    FROM looks
    GROUP BY model, profile, instrument
),

lost AS (
    SELECT model, profile, instrument, SUM(compared) AS compared
    FROM look_losses
    GROUP BY model, profile, instrument
)

SELECT model, profile
FROM folded AS f
FULL JOIN looked AS l USING (model, profile, instrument)
FULL JOIN lost AS c USING (model, profile, instrument)
WHERE (f.seen, f.units, f.covered, f.compared)
    IS DISTINCT FROM (l.seen, l.units, l.covered, COALESCE(c.compared, 0))
ORDER BY model, profile
