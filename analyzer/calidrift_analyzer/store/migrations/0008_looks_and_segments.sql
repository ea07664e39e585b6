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

-- What an earlier version folded is known by rollup only, and its looks were joined across the ends of
-- these: each gets a look of its own, without units, before the look that ended when the rollup did
-- or next after it. So the sums are those that version took, in its order, and a breach stays.
-- Rollups that arrived and ended together share one, except at moments that somebody sums from.
CREATE TABLE folded_losses AS
SELECT
    f.*,
    MAX(COALESCE(n.look, f.last)) OVER (
        PARTITION BY f.model, f.profile, f.instrument ORDER BY f.place
    ) AS look,
    MIN(f.place) FILTER (f.is_cut) OVER (
        PARTITION BY f.model, f.profile, f.instrument
        ORDER BY f.place
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS slot
FROM (
    SELECT
        p.model, p.profile, p.instrument, r.ended, r.compared, r.ranked, r.agreed, r.noise_ppb,
        l.last,
        ROW_NUMBER() OVER stream AS place,
        m.moment IS NOT NULL
        OR LEAD(r.batch) OVER stream IS DISTINCT FROM r.batch
        OR LEAD(r.ended) OVER stream IS DISTINCT FROM r.ended AS is_cut
    FROM rollups AS r
    JOIN processes AS p USING (process_id)
    JOIN (
        SELECT model, profile, instrument, MAX(look) AS last
        FROM looks
        GROUP BY model, profile, instrument
    ) AS l USING (model, profile, instrument)
    LEFT JOIN moments AS m
        ON m.model = p.model AND m.profile = p.profile AND m.moment = r.ended
    WHERE r.compared > 0
    WINDOW stream AS (
        PARTITION BY p.model, p.profile, p.instrument
        ORDER BY r.batch, r.ended, r.process_id, r.number
    )
) AS f
ASOF LEFT JOIN (
    SELECT model, profile, instrument, ended, MIN(look) AS look
    FROM looks
    GROUP BY model, profile, instrument, ended
) AS n
    ON f.model = n.model
    AND f.profile = n.profile
    AND f.instrument = n.instrument
    AND f.ended <= n.ended;

-- Numbers again without gaps; `slot` is 0 for a look that was there before.
CREATE TABLE renumbered AS
SELECT
    model, profile, instrument, look AS before, slot,
    ROW_NUMBER() OVER (
        PARTITION BY model, profile, instrument ORDER BY look, slot = 0, slot
    ) - 1 AS look
FROM (
    SELECT model, profile, instrument, look, 0 AS slot
    FROM looks
    UNION ALL
    SELECT model, profile, instrument, look, slot
    FROM folded_losses
    WHERE place = slot
);

CREATE TABLE looks_again AS
SELECT
    n.model, n.profile, n.instrument, n.look, l.ended, l.windows, l.seen, l.units, l.covered
FROM looks AS l
JOIN renumbered AS n
    ON n.model = l.model
    AND n.profile = l.profile
    AND n.instrument = l.instrument
    AND n.before = l.look
    AND n.slot = 0
UNION ALL
SELECT n.model, n.profile, n.instrument, n.look, f.ended, 0, 0, 0, 0
FROM folded_losses AS f
JOIN renumbered AS n USING (model, profile, instrument, slot)
WHERE f.place = f.slot;

-- Not updated in place: numbers that move on by one would be taken until all have moved.
DROP TABLE looks;

CREATE TABLE looks (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    look BIGINT NOT NULL,
    ended TIMESTAMP_NS NOT NULL,
    windows BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    units BIGINT NOT NULL,
    covered BIGINT NOT NULL,
    PRIMARY KEY (model, profile, instrument, look)
);

INSERT INTO looks
SELECT model, profile, instrument, look, ended, windows, seen, units, covered
FROM looks_again
ORDER BY model, profile, instrument, look;

UPDATE look_points AS t
SET look = n.look
FROM renumbered AS n
WHERE n.model = t.model
    AND n.profile = t.profile
    AND n.instrument = t.instrument
    AND n.before = t.look
    AND n.slot = 0
    AND n.look <> n.before;

UPDATE look_segments AS t
SET look = n.look
FROM renumbered AS n
WHERE n.model = t.model
    AND n.profile = t.profile
    AND n.instrument = t.instrument
    AND n.before = t.look
    AND n.slot = 0
    AND n.look <> n.before;

INSERT INTO look_losses
SELECT
    n.model, n.profile, n.instrument, n.look, SUM(f.compared),
    COALESCE(SUM(f.compared) FILTER (f.ranked = f.compared), 0),
    COALESCE(SUM(LEAST(f.agreed, f.compared)) FILTER (f.ranked = f.compared), 0),
    COALESCE(
        SUM(LEAST(f.noise_ppb, f.compared * 1_000_000_000)) FILTER (f.ranked <> f.compared), 0
    )
FROM folded_losses AS f
JOIN renumbered AS n USING (model, profile, instrument, slot)
GROUP BY n.model, n.profile, n.instrument, n.look
ORDER BY n.model, n.profile, n.instrument, n.look;

DROP TABLE looks_again;
DROP TABLE renumbered;
DROP TABLE folded_losses;

-- How many of the units that a reference was learned from were of which segment; an empty segment
-- stands for those of none. Nothing here: nobody counted them.
CREATE TABLE reference_segments (
    profile VARCHAR NOT NULL,
    segment VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    PRIMARY KEY (profile, segment)
);
