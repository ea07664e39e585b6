SELECT
    (SELECT COUNT(*) FROM recorded) AS records,
    (SELECT CAST(COALESCE(SUM(windows), 0) AS BIGINT) FROM recorded) AS windows,
    (SELECT CAST(COALESCE(SUM(coarse), 0) AS BIGINT) FROM recorded) AS coarse,
    (SELECT COUNT(*) FROM recorded_points) AS points,
    (SELECT COUNT(*) FROM processes) AS processes
