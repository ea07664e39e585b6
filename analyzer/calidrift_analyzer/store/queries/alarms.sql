SELECT
    model,
    profile,
    point,
    epoch_ns(ended) AS end_ns,
    units,
    observed,
    served,
    log10_evidence,
    log10_threshold
FROM alarms
WHERE model = $model AND profile = $profile
ORDER BY ended, point
