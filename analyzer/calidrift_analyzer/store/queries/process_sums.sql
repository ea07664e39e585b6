-- What is stored of one process, summed: the part of its cumulative state that is already here.
SELECT
    COALESCE(MAX(w.number), -1) AS number,
    COALESCE(MIN(epoch_ns(w.started)), 0) AS start_ns,
    COALESCE(MAX(epoch_ns(w.ended)), 0) AS end_ns,
    CAST(COALESCE(BIT_OR(w.flags), 0) AS INTEGER) AS flags,
    CAST(COALESCE(SUM(w.seen), 0) AS BIGINT) AS seen,
    CAST(COALESCE(SUM(w.sampled), 0) AS BIGINT) AS sampled,
    CAST(COALESCE(SUM(w.observed), 0) AS BIGINT) AS observed,
    CAST(COALESCE(SUM(w.units), 0) AS BIGINT) AS units,
    CAST(COALESCE(SUM(w.units_covered), 0) AS BIGINT) AS units_covered,
    CAST(COALESCE(SUM(w.overhead_ns), 0) AS BIGINT) AS overhead_ns,
    CAST(COALESCE(SUM(w.forward_ns), 0) AS BIGINT) AS forward_ns,
    CAST(COALESCE(SUM(w.error_sample), 0) AS BIGINT) AS error_sample,
    CAST(COALESCE(SUM(w.error_tap), 0) AS BIGINT) AS error_tap,
    CAST(COALESCE(SUM(w.error_shadow), 0) AS BIGINT) AS error_shadow,
    CAST(COALESCE(SUM(w.error_drain), 0) AS BIGINT) AS error_drain,
    CAST(COALESCE(SUM(w.error_state), 0) AS BIGINT) AS error_state,
    CAST(COALESCE(SUM(w.error_capture), 0) AS BIGINT) AS error_capture,
    CAST(COALESCE(SUM(w.drop_queue_full), 0) AS BIGINT) AS drop_queue_full,
    CAST(COALESCE(SUM(w.drop_disk_full), 0) AS BIGINT) AS drop_disk_full,
    CAST(COALESCE(SUM(w.drop_capture_limit), 0) AS BIGINT) AS drop_capture_limit,
    CAST(COALESCE(SUM(w.drop_state_unavailable), 0) AS BIGINT) AS drop_state_unavailable,
    CAST(COALESCE(SUM(w.drop_unsuitable_input), 0) AS BIGINT) AS drop_unsuitable_input
FROM windows AS w
WHERE w.process_id = $process_id
