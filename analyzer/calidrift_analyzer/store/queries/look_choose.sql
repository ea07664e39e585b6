-- Into which look each window that moves is joined: those of one hour of arrival, up to a landmark.
CREATE OR REPLACE TEMP TABLE looking AS
WITH known AS (
    SELECT model, profile, instrument, MAX(look) + 1 AS looks
    FROM looks
    GROUP BY model, profile, instrument
),

ordered AS (
    SELECT
        p.model,
        p.profile,
        p.instrument,
        w.process_id,
        w.number,
        COALESCE(k.looks, 0) AS looks,
        epoch_ns(b.arrived) // $hour AS hour,
        CAST(l.number IS NOT NULL AS BIGINT) AS landmark,
        ROW_NUMBER() OVER (
            PARTITION BY p.model, p.profile, p.instrument
            ORDER BY w.batch, w.ended, w.process_id, w.number
        ) AS place
    FROM windows AS w
    JOIN moving AS m USING (process_id, number)
    JOIN processes AS p USING (process_id)
    JOIN batches AS b USING (batch)
    LEFT JOIN known AS k USING (model, profile, instrument)
    LEFT JOIN landmarks AS l ON l.process_id = w.process_id AND l.number = w.number
),

cut AS (
    SELECT
        *,
        COALESCE(
            SUM(landmark) OVER (
                PARTITION BY model, profile, instrument
                ORDER BY place
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            0
        ) AS part
    FROM ordered
)

SELECT
    *,
    looks - 1
    + DENSE_RANK() OVER (PARTITION BY model, profile, instrument ORDER BY hour, part) AS look
FROM cut
