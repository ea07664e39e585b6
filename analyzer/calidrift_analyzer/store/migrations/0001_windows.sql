-- Times are UTC: TIMESTAMP_NS, never TIMESTAMPTZ (fetching that needs pytz, which duckdb does not bring).
-- A process is one watched model in one serving process; its figures are comparable with those of
-- another process only where model, profile and instrument are the same.
CREATE TABLE processes (
    process_id INTEGER NOT NULL PRIMARY KEY,
    process VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    boot VARCHAR NOT NULL,
    pid BIGINT NOT NULL,
    started TIMESTAMP_NS NOT NULL,
    instrument VARCHAR NOT NULL,
    strategy VARCHAR NOT NULL,
    agent_version VARCHAR NOT NULL,
    window_seconds DOUBLE NOT NULL,
    UNIQUE (process, model, profile)
);

CREATE TABLE process_points (
    process_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    point VARCHAR NOT NULL,
    observed_bound DOUBLE,
    clip_lo DOUBLE,
    clip_hi DOUBLE,
    aliases VARCHAR[] NOT NULL,
    PRIMARY KEY (process_id, position)
);

-- The primary key is what makes ingest exactly once. `batch` is the collect run that brought the
-- window: sequential tests look at windows in the order (batch, ended), which only ever grows.
CREATE TABLE windows (
    process_id INTEGER NOT NULL,
    number BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    started TIMESTAMP_NS NOT NULL,
    ended TIMESTAMP_NS NOT NULL,
    flags INTEGER NOT NULL,
    sampling_ratio DOUBLE NOT NULL,
    seen BIGINT NOT NULL,
    sampled BIGINT NOT NULL,
    observed BIGINT NOT NULL,
    units BIGINT NOT NULL,
    units_covered BIGINT NOT NULL,
    overhead_ns BIGINT NOT NULL,
    forward_ns BIGINT NOT NULL,
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
    PRIMARY KEY (process_id, number)
);

CREATE TABLE segment_counts (
    process_id INTEGER NOT NULL,
    number BIGINT NOT NULL,
    segment VARCHAR NOT NULL,
    units BIGINT NOT NULL,
    covered BIGINT NOT NULL
);

-- Points at which nothing happened in a window have no row. No index: rows come and go with
-- their window, and an index over them would cost more than the data.
CREATE TABLE point_windows (
    process_id INTEGER NOT NULL,
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
    cells STRUCT(cell USMALLINT, count BIGINT)[] NOT NULL
);

CREATE TABLE profiles (
    digest VARCHAR NOT NULL PRIMARY KEY,
    added TIMESTAMP_NS NOT NULL,
    document VARCHAR NOT NULL
);

CREATE TABLE captures (
    path VARCHAR NOT NULL PRIMARY KEY,
    process VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    captured TIMESTAMP_NS NOT NULL,
    segment VARCHAR,
    size BIGINT NOT NULL
);

CREATE SEQUENCE outcome_ids;

CREATE TABLE assessments (
    id BIGINT NOT NULL DEFAULT nextval('outcome_ids'),
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    created TIMESTAMP_NS NOT NULL,
    verdict VARCHAR NOT NULL,
    document VARCHAR NOT NULL
);

CREATE TABLE alarms (
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    point VARCHAR NOT NULL,
    ended TIMESTAMP_NS NOT NULL,
    units BIGINT NOT NULL,
    observed BIGINT NOT NULL,
    served BIGINT NOT NULL,
    log10_evidence DOUBLE NOT NULL,
    log10_threshold DOUBLE NOT NULL,
    PRIMARY KEY (model, profile, point)
);

CREATE TABLE validations (
    id BIGINT NOT NULL DEFAULT nextval('outcome_ids'),
    model VARCHAR NOT NULL,
    candidate VARCHAR NOT NULL,
    created TIMESTAMP_NS NOT NULL,
    accepted BOOLEAN NOT NULL,
    document VARCHAR NOT NULL
);

CREATE TABLE versions (
    id BIGINT NOT NULL DEFAULT nextval('outcome_ids'),
    model VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    created TIMESTAMP_NS NOT NULL,
    profile VARCHAR NOT NULL,
    document VARCHAR NOT NULL
);
