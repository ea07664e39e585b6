-- The first alarm of a point stays: of two archives the earlier one's.
INSERT INTO alarms BY NAME
SELECT *
FROM incoming_archive.alarms
ON CONFLICT (model, profile, point) DO UPDATE SET
    ended = EXCLUDED.ended,
    units = EXCLUDED.units,
    observed = EXCLUDED.observed,
    served = EXCLUDED.served,
    log10_evidence = EXCLUDED.log10_evidence,
    log10_threshold = EXCLUDED.log10_threshold
WHERE EXCLUDED.ended < alarms.ended
