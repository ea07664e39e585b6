-- What was compared with the FP32 reference, look by look, as exceedances are: sums over looks are
-- then those of the windows in them, in the order in which they were looked at, however many
-- processes there are. A window counts by classes where all its compared outputs have them, else by
-- noise. Looks without a comparison have no row; rows are added and never changed.
CREATE TABLE look_losses (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    look BIGINT NOT NULL,
    compared BIGINT NOT NULL,
    ranked BIGINT NOT NULL,
    agreed BIGINT NOT NULL,
    noise_ppb BIGINT NOT NULL
);

CREATE VIEW window_losses AS
SELECT
    process_id, number, compared,
    CASE WHEN ranked = compared THEN compared ELSE 0 END AS ranked,
    CASE WHEN ranked = compared THEN LEAST(agreed, compared) ELSE 0 END AS agreed,
    CASE
        WHEN ranked = compared THEN 0 ELSE LEAST(noise_ppb, compared * 1_000_000_000)
    END AS noise_ppb
FROM windows
WHERE compared > 0;

-- What an earlier version folded is known by rollup only: it counts in the look that ended when the
-- rollup did or next after it, else in the last one.
INSERT INTO look_losses
SELECT
    model, profile, instrument, look, SUM(compared),
    COALESCE(SUM(compared) FILTER (ranked = compared), 0),
    COALESCE(SUM(LEAST(agreed, compared)) FILTER (ranked = compared), 0),
    COALESCE(
        SUM(LEAST(noise_ppb, compared * 1_000_000_000)) FILTER (ranked <> compared), 0
    )
FROM (
    SELECT
        f.model, f.profile, f.instrument, f.compared, f.ranked, f.agreed, f.noise_ppb,
        COALESCE(n.look, f.last) AS look
    FROM (
        SELECT
            p.model, p.profile, p.instrument, r.ended, r.compared, r.ranked, r.agreed,
            r.noise_ppb, l.last
        FROM rollups AS r
        JOIN processes AS p USING (process_id)
        JOIN (
            SELECT model, profile, instrument, MAX(look) AS last
            FROM looks
            GROUP BY model, profile, instrument
        ) AS l USING (model, profile, instrument)
        WHERE r.compared > 0
    ) AS f
    ASOF LEFT JOIN (
        SELECT model, profile, instrument, ended, MIN(look) AS look
        FROM looks
        GROUP BY model, profile, instrument, ended
    ) AS n
        ON f.model = n.model
        AND f.profile = n.profile
        AND f.instrument = n.instrument
        AND f.ended <= n.ended
)
GROUP BY model, profile, instrument, look
ORDER BY model, profile, instrument, look;

-- How many of the units that a reference was learned from were of which segment; an empty segment
-- stands for those of none. Nothing here: nobody counted them.
CREATE TABLE reference_segments (
    profile VARCHAR NOT NULL,
    segment VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    PRIMARY KEY (profile, segment)
);
