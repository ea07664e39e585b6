-- The first alarm of a point stays; nothing replaces it.
INSERT INTO alarms
VALUES (
    $model, $profile, $point, make_timestamp_ns($ended), $units, $observed, $served,
    $log10_evidence, $log10_threshold
)
ON CONFLICT DO NOTHING
