-- Sums over all records of units, and over those that were taken.
SELECT
    CAST(COALESCE(SUM(units), 0) AS BIGINT) AS measured,
    CAST(COALESCE(SUM(units) FILTER (taken), 0) AS BIGINT) AS units,
    CAST(COALESCE(SUM(compared) FILTER (taken), 0) AS BIGINT) AS compared,
    CAST(COALESCE(SUM(windows) FILTER (taken), 0) AS BIGINT) AS windows,
    CAST(COALESCE(SUM(coarse) FILTER (taken), 0) AS BIGINT) AS coarse_windows,
    COALESCE(MIN(epoch_ns(started)), 0) AS began_ns,
    COALESCE(MAX(epoch_ns(ended)), 0) AS seen_until_ns,
    COALESCE(MIN(epoch_ns(started)) FILTER (taken), 0) AS first_ns,
    COALESCE(MAX(epoch_ns(ended)) FILTER (taken), 0) AS last_ns
FROM reference_records
