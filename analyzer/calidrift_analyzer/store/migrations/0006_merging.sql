-- A record of another archive comes in as a window, whatever it is there: sequential tests look at
-- it last, like at anything that arrives late. `first` is then the number of the first window
-- inside (nothing where that is the row itself), `holds` how many windows the row stands for, and
-- `coarsened` how many of them were coarse (nothing where the flags say it).
ALTER TABLE windows ADD COLUMN first BIGINT;
ALTER TABLE windows ADD COLUMN holds BIGINT DEFAULT 1;
ALTER TABLE windows ADD COLUMN coarsened BIGINT;

-- What was in the records that moved, so that `calidrift store check` can hold the rollups against
-- it. Nothing in rows that an earlier version wrote.
ALTER TABLE folds ADD COLUMN windows HUGEINT;
ALTER TABLE folds ADD COLUMN seen HUGEINT;
ALTER TABLE folds ADD COLUMN elements HUGEINT;
ALTER TABLE folds ADD COLUMN cells HUGEINT;

CREATE OR REPLACE VIEW recorded AS
SELECT
    process_id, 0 AS tier, number, COALESCE(first, number) AS first, batch, started, ended, flags,
    sampling_ratio, holds AS windows,
    COALESCE(coarsened, CAST(flags & 2 <> 0 AS BIGINT)) AS coarse,
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
