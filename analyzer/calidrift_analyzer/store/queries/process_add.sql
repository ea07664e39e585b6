INSERT INTO processes
SELECT
    COALESCE(MAX(process_id), 0) + 1,
    $process,
    $model,
    $profile,
    $boot,
    $pid,
    make_timestamp_ns($started),
    $instrument,
    $strategy,
    $agent_version,
    $window_seconds
FROM processes
