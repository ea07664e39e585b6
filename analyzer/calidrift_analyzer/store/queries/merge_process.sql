SELECT
    process, boot, pid, epoch_ns(started), model, profile, instrument, strategy, agent_version,
    window_seconds
FROM processes
WHERE process_id = $process_id
