-- The records that hold the first units of inference under a profile: in the order in which they
-- arrived, up to the one in which the wanted number is reached. A unit is measured at every point
-- that it runs through, so a record holds as many units as the point with most of them. Which
-- records are chosen depends on counts and times only, never on what was measured.
CREATE OR REPLACE TEMP TABLE reference_records AS
WITH held AS (
    SELECT
        t.process_id, t.tier, t.number, t.batch, t.started, t.ended, t.windows, t.coarse,
        t.units AS compared,
        MAX(w.units_measured) AS units
    FROM recorded_points AS w
    JOIN recorded AS t USING (process_id, tier, number)
    JOIN processes AS p USING (process_id)
    WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
        AND w.units_measured > 0
    GROUP BY ALL
),

counted AS (
    SELECT
        *,
        SUM(units) OVER (
            ORDER BY batch, ended, process_id, tier, number
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) - units AS before
    FROM held
)

SELECT *, before < $units AS taken
FROM counted
