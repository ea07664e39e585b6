-- One row: request counters of a model, over everything recorded of its processes or of one.
SELECT
    CAST(COALESCE(SUM(w.windows), 0) AS BIGINT) AS windows,
    CAST(COALESCE(SUM(w.coarse), 0) AS BIGINT) AS coarse_windows,
    COUNT(DISTINCT w.process_id) AS processes,
    COALESCE(MAX(w.number), -1) AS last_number,
    CAST(COALESCE(BIT_OR(w.flags), 0) AS INTEGER) AS flags,
    COALESCE(MIN(epoch_ns(w.started)), 0) AS first_ns,
    COALESCE(MAX(epoch_ns(w.ended)), 0) AS last_ns,
    CAST(COALESCE(SUM(w.seen), 0) AS BIGINT) AS seen,
    CAST(COALESCE(SUM(w.sampled), 0) AS BIGINT) AS sampled,
    CAST(COALESCE(SUM(w.observed), 0) AS BIGINT) AS observed,
    CAST(COALESCE(SUM(w.units), 0) AS BIGINT) AS units,
    CAST(COALESCE(SUM(w.units_covered), 0) AS BIGINT) AS units_covered,
    CAST(COALESCE(SUM(w.overhead_ns), 0) AS BIGINT) AS overhead_ns,
    CAST(COALESCE(SUM(w.forward_ns), 0) AS BIGINT) AS forward_ns,
    CAST(COALESCE(SUM(w.steps), 0) AS BIGINT) AS steps,
    CAST(COALESCE(SUM(w.compared), 0) AS BIGINT) AS compared,
    CAST(COALESCE(SUM(w.ranked), 0) AS BIGINT) AS ranked,
    CAST(COALESCE(SUM(w.agreed), 0) AS BIGINT) AS agreed,
    CAST(COALESCE(SUM(w.noise_ppb), 0) AS BIGINT) AS noise_ppb,
    CAST(COALESCE(SUM(w.distance_ppb), 0) AS BIGINT) AS distance_ppb,
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
    CAST(COALESCE(SUM(w.drop_unsuitable_input), 0) AS BIGINT) AS drop_unsuitable_input,
    CAST(COALESCE(SUM(w.drop_stateful_call), 0) AS BIGINT) AS drop_stateful_call,
    CAST(COALESCE(SUM(w.drop_rate_limit), 0) AS BIGINT) AS drop_rate_limit,
    CAST(COALESCE(SUM(w.drop_redacted), 0) AS BIGINT) AS drop_redacted,
    CAST(COALESCE(SUM(w.drop_no_key), 0) AS BIGINT) AS drop_no_key
FROM recorded AS w
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
    AND ($process IS NULL OR p.process = $process) AND epoch_ns(w.ended) > $since
    AND ($through IS NULL OR w.number <= $through)
