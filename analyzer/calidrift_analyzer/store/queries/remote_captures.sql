-- What lies captured beside one other process, as it was listed last.
SELECT
    name,
    process,
    model,
    profile,
    kind,
    epoch_ns(captured) AS captured_ns,
    segment,
    size,
    FALSE AS here
FROM remote_captures
WHERE process = $process
ORDER BY captured, name
