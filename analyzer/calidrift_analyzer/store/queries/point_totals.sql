-- One row per point at which anything happened: counts and sums added, extremes of extremes.
SELECT
    n.point,
    CAST(SUM(w.units) AS BIGINT) AS units,
    CAST(SUM(w.exceedances) AS BIGINT) AS exceedances,
    CAST(SUM(w.rows) AS BIGINT) AS rows,
    CAST(SUM(w.elements) AS BIGINT) AS elements,
    CAST(SUM(w.clip_elements) AS BIGINT) AS clip_elements,
    CAST(SUM(w.clip_low) AS BIGINT) AS clip_low,
    CAST(SUM(w.clip_high) AS BIGINT) AS clip_high,
    CAST(SUM(w.nan) AS BIGINT) AS nan,
    CAST(SUM(w.inf) AS BIGINT) AS inf,
    CAST(SUM(w.padded_elements) AS BIGINT) AS padded_elements,
    CAST(SUM(w.ratio_0) AS BIGINT) AS ratio_0,
    CAST(SUM(w.ratio_1) AS BIGINT) AS ratio_1,
    CAST(SUM(w.ratio_2) AS BIGINT) AS ratio_2,
    CAST(SUM(w.ratio_3) AS BIGINT) AS ratio_3,
    CAST(SUM(w.ratio_4) AS BIGINT) AS ratio_4,
    CAST(SUM(w.ratio_5) AS BIGINT) AS ratio_5,
    CAST(SUM(w.ratio_6) AS BIGINT) AS ratio_6,
    CAST(SUM(w.ratio_7) AS BIGINT) AS ratio_7,
    CAST(SUM(w.ratio_8) AS BIGINT) AS ratio_8,
    CAST(SUM(w.ratio_9) AS BIGINT) AS ratio_9,
    CAST(SUM(w.ratio_10) AS BIGINT) AS ratio_10,
    MIN(w.lowest) AS lowest,
    MAX(w.highest) AS highest,
    SUM(w.ratio_sum) AS ratio_sum,
    SUM(w.clipped_energy) AS clipped_energy,
    SUM(w.energy) AS energy,
    MIN(w.padded_lowest) AS padded_lowest,
    MAX(w.padded_highest) AS padded_highest
FROM recorded_points AS w
JOIN recorded AS t USING (process_id, tier, number)
JOIN process_points AS n USING (process_id, position)
JOIN processes AS p USING (process_id)
WHERE p.model = $model AND p.profile = $profile AND p.instrument = $instrument
    AND ($process IS NULL OR p.process = $process) AND epoch_ns(t.ended) > $since
GROUP BY n.point
