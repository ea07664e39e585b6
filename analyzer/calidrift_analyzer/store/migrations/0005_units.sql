-- How many units of inference were measured at a point, bound or no bound, and the largest of them:
-- what a reference is made of that is learned from production. What was stored before had none.
ALTER TABLE point_windows ADD COLUMN units_measured BIGINT DEFAULT 0;
ALTER TABLE point_windows ADD COLUMN units_not_finite BIGINT DEFAULT 0;
ALTER TABLE point_windows ADD COLUMN unit_highest DOUBLE DEFAULT '-inf'::DOUBLE;
ALTER TABLE rollup_points ADD COLUMN units_measured BIGINT DEFAULT 0;
ALTER TABLE rollup_points ADD COLUMN units_not_finite BIGINT DEFAULT 0;
ALTER TABLE rollup_points ADD COLUMN unit_highest DOUBLE DEFAULT '-inf'::DOUBLE;

CREATE OR REPLACE VIEW recorded_points AS
SELECT
    process_id, 0 AS tier, number, position,
    units, exceedances, rows, elements, clip_elements, clip_low, clip_high, nan, inf,
    padded_elements, ratio_0, ratio_1, ratio_2, ratio_3, ratio_4, ratio_5, ratio_6, ratio_7,
    ratio_8, ratio_9, ratio_10, units_measured, units_not_finite, lowest, highest, ratio_sum,
    clipped_energy, energy, padded_lowest, padded_highest, unit_highest, cells
FROM point_windows
UNION ALL
SELECT
    process_id, tier, number, position,
    units, exceedances, rows, elements, clip_elements, clip_low, clip_high, nan, inf,
    padded_elements, ratio_0, ratio_1, ratio_2, ratio_3, ratio_4, ratio_5, ratio_6, ratio_7,
    ratio_8, ratio_9, ratio_10, units_measured, units_not_finite, lowest, highest, ratio_sum,
    clipped_energy, energy, padded_lowest, padded_highest, unit_highest, cells
FROM rollup_points;
