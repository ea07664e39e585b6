-- Windows fold into rollups: rows of the same figures over a minute, an hour, a day and at last the
-- whole life of a process. A window is in `windows` or in one rollup, never in both: it moves, in
-- one transaction, so whatever is repeated or interrupted nothing is lost and nothing counts twice.

-- When each collect run came, on the analyzer's clock and never running back: the age of what is
-- kept is counted from here, because the clocks of agents step.
CREATE TABLE batches (
    batch BIGINT NOT NULL PRIMARY KEY,
    arrived TIMESTAMP_NS NOT NULL
);

INSERT INTO batches
SELECT batch, MAX(MAX(ended)) OVER (ORDER BY batch)
FROM windows
GROUP BY batch;

-- `number` is that of the last window inside, `first` that of the first one; `batch` the last one.
-- Tiers: 1 minute, 2 hour, 3 day, 4 the life of the process.
CREATE TABLE rollups (
    process_id INTEGER NOT NULL,
    tier TINYINT NOT NULL,
    number BIGINT NOT NULL,
    first BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    started TIMESTAMP_NS NOT NULL,
    ended TIMESTAMP_NS NOT NULL,
    flags INTEGER NOT NULL,
    sampling_ratio DOUBLE NOT NULL,
    windows BIGINT NOT NULL,
    coarse BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    sampled BIGINT NOT NULL,
    observed BIGINT NOT NULL,
    units BIGINT NOT NULL,
    units_covered BIGINT NOT NULL,
    overhead_ns BIGINT NOT NULL,
    forward_ns BIGINT NOT NULL,
    steps BIGINT NOT NULL,
    compared BIGINT NOT NULL,
    ranked BIGINT NOT NULL,
    agreed BIGINT NOT NULL,
    noise_ppb BIGINT NOT NULL,
    distance_ppb BIGINT NOT NULL,
    error_sample BIGINT NOT NULL,
    error_tap BIGINT NOT NULL,
    error_shadow BIGINT NOT NULL,
    error_drain BIGINT NOT NULL,
    error_state BIGINT NOT NULL,
    error_capture BIGINT NOT NULL,
    drop_queue_full BIGINT NOT NULL,
    drop_disk_full BIGINT NOT NULL,
    drop_capture_limit BIGINT NOT NULL,
    drop_state_unavailable BIGINT NOT NULL,
    drop_unsuitable_input BIGINT NOT NULL,
    drop_stateful_call BIGINT NOT NULL,
    drop_rate_limit BIGINT NOT NULL,
    drop_redacted BIGINT NOT NULL,
    drop_no_key BIGINT NOT NULL,
    PRIMARY KEY (process_id, tier, number)
);

CREATE TABLE rollup_segments (
    process_id INTEGER NOT NULL,
    tier TINYINT NOT NULL,
    number BIGINT NOT NULL,
    segment VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    covered BIGINT NOT NULL
);

CREATE TABLE rollup_points (
    process_id INTEGER NOT NULL,
    tier TINYINT NOT NULL,
    number BIGINT NOT NULL,
    position INTEGER NOT NULL,
    units BIGINT NOT NULL,
    exceedances BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    elements BIGINT NOT NULL,
    clip_elements BIGINT NOT NULL,
    clip_low BIGINT NOT NULL,
    clip_high BIGINT NOT NULL,
    nan BIGINT NOT NULL,
    inf BIGINT NOT NULL,
    padded_elements BIGINT NOT NULL,
    ratio_0 BIGINT NOT NULL,
    ratio_1 BIGINT NOT NULL,
    ratio_2 BIGINT NOT NULL,
    ratio_3 BIGINT NOT NULL,
    ratio_4 BIGINT NOT NULL,
    ratio_5 BIGINT NOT NULL,
    ratio_6 BIGINT NOT NULL,
    ratio_7 BIGINT NOT NULL,
    ratio_8 BIGINT NOT NULL,
    ratio_9 BIGINT NOT NULL,
    ratio_10 BIGINT NOT NULL,
    lowest DOUBLE NOT NULL,
    highest DOUBLE NOT NULL,
    ratio_sum DOUBLE NOT NULL,
    clipped_energy DOUBLE NOT NULL,
    energy DOUBLE NOT NULL,
    padded_lowest DOUBLE NOT NULL,
    padded_highest DOUBLE NOT NULL,
    cells STRUCT(cell USMALLINT, count BIGINT)[] NOT NULL
);

-- What sequential tests have looked at and is no longer in `windows`: the looks of each model in
-- their order, joined by the hour of arrival except at looks that evidence refers to. Sums run on
-- over them, so evidence that was spent stays spent. Rows are added and never changed.
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

CREATE TABLE look_points (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    look BIGINT NOT NULL,
    point VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    exceedances BIGINT NOT NULL
);

-- `place`: in which order segments appeared for the first time inside the look.
CREATE TABLE look_segments (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    look BIGINT NOT NULL,
    place INTEGER NOT NULL,
    segment VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    covered BIGINT NOT NULL
);

-- Moments that somebody sums from (the beginning of a drift): no rollup reaches across one.
CREATE TABLE moments (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    moment TIMESTAMP_NS NOT NULL,
    PRIMARY KEY (model, profile, moment)
);

-- The ledger: what was folded, when, and into how many rows.
CREATE TABLE folds (
    folded TIMESTAMP_NS NOT NULL,
    tier TINYINT NOT NULL,
    through BIGINT NOT NULL,
    records BIGINT NOT NULL,
    rollups BIGINT NOT NULL
);

-- Everything that is recorded, wherever it stands now; (process_id, tier, number) is unique.
CREATE VIEW recorded AS
SELECT
    process_id, 0 AS tier, number, number AS first, batch, started, ended, flags,
    sampling_ratio, 1 AS windows, CAST(flags & 2 <> 0 AS BIGINT) AS coarse,
    seen, sampled, observed, units, units_covered, overhead_ns, forward_ns, steps, compared,
    ranked, agreed, noise_ppb, distance_ppb, error_sample, error_tap, error_shadow,
    error_drain, error_state, error_capture, drop_queue_full, drop_disk_full,
    drop_capture_limit, drop_state_unavailable, drop_unsuitable_input, drop_stateful_call,
    drop_rate_limit, drop_redacted, drop_no_key
FROM windows
UNION ALL
SELECT
    process_id, tier, number, first, batch, started, ended, flags,
    sampling_ratio, windows, coarse,
    seen, sampled, observed, units, units_covered, overhead_ns, forward_ns, steps, compared,
    ranked, agreed, noise_ppb, distance_ppb, error_sample, error_tap, error_shadow,
    error_drain, error_state, error_capture, drop_queue_full, drop_disk_full,
    drop_capture_limit, drop_state_unavailable, drop_unsuitable_input, drop_stateful_call,
    drop_rate_limit, drop_redacted, drop_no_key
FROM rollups;

CREATE VIEW recorded_segments AS
SELECT process_id, 0 AS tier, number, segment, units, covered
FROM segment_counts
UNION ALL
SELECT process_id, tier, number, segment, units, covered
FROM rollup_segments;

CREATE VIEW recorded_points AS
SELECT
    process_id, 0 AS tier, number, position,
    units, exceedances, rows, elements, clip_elements, clip_low, clip_high, nan, inf,
    padded_elements, ratio_0, ratio_1, ratio_2, ratio_3, ratio_4, ratio_5, ratio_6, ratio_7,
    ratio_8, ratio_9, ratio_10, lowest, highest, ratio_sum, clipped_energy, energy,
    padded_lowest, padded_highest, cells
FROM point_windows
UNION ALL
SELECT
    process_id, tier, number, position,
    units, exceedances, rows, elements, clip_elements, clip_low, clip_high, nan, inf,
    padded_elements, ratio_0, ratio_1, ratio_2, ratio_3, ratio_4, ratio_5, ratio_6, ratio_7,
    ratio_8, ratio_9, ratio_10, lowest, highest, ratio_sum, clipped_energy, energy,
    padded_lowest, padded_highest, cells
FROM rollup_points;
