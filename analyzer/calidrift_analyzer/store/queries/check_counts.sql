-- Records of points with counts that cannot be: negative, or a part larger than its whole.
SELECT DISTINCT process_id, number
FROM recorded_points
WHERE LEAST(units, exceedances, rows, elements, clip_elements, clip_low, clip_high, nan, inf) < 0
    OR exceedances > units
ORDER BY process_id, number
