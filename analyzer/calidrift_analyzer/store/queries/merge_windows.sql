INSERT INTO windows BY NAME
SELECT
    c.process_id, $batch AS batch, r.windows AS holds, r.coarse AS coarsened,
    r.* EXCLUDE (process_id, tier, batch, windows, coarse)
FROM incoming_archive.recorded AS r
JOIN coming AS c ON c.source = r.process_id AND c.number = r.number
