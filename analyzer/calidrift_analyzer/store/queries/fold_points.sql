-- Sketches first: one list of summed cells per point; then everything else beside it.
INSERT INTO rollup_points BY NAME
WITH chosen AS (
    SELECT m.target, r.*
    FROM recorded_points AS r
    JOIN moving AS m USING (process_id, tier, number)
),

summed AS (
    SELECT e.process_id, e.target, e.position, e.item.cell AS cell, SUM(e.item.count) AS count
    FROM (SELECT process_id, target, position, UNNEST(cells) AS item FROM chosen) AS e
    GROUP BY e.process_id, e.target, e.position, e.item.cell
),

sketches AS (
    SELECT
        process_id, target, position,
        LIST(STRUCT_PACK(cell := cell, count := CAST(count AS BIGINT)) ORDER BY cell) AS cells
    FROM summed
    GROUP BY process_id, target, position
),

figures AS (
    SELECT
        process_id, target, position,
        SUM(units) AS units,
        SUM(exceedances) AS exceedances,
        SUM(rows) AS rows,
        SUM(elements) AS elements,
        SUM(clip_elements) AS clip_elements,
        SUM(clip_low) AS clip_low,
        SUM(clip_high) AS clip_high,
        SUM(nan) AS nan,
        SUM(inf) AS inf,
        SUM(padded_elements) AS padded_elements,
        SUM(ratio_0) AS ratio_0,
        SUM(ratio_1) AS ratio_1,
        SUM(ratio_2) AS ratio_2,
        SUM(ratio_3) AS ratio_3,
        SUM(ratio_4) AS ratio_4,
        SUM(ratio_5) AS ratio_5,
        SUM(ratio_6) AS ratio_6,
        SUM(ratio_7) AS ratio_7,
        SUM(ratio_8) AS ratio_8,
        SUM(ratio_9) AS ratio_9,
        SUM(ratio_10) AS ratio_10,
        SUM(units_measured) AS units_measured,
        SUM(units_not_finite) AS units_not_finite,
        MIN(lowest) AS lowest,
        MAX(highest) AS highest,
        SUM(ratio_sum) AS ratio_sum,
        SUM(clipped_energy) AS clipped_energy,
        SUM(energy) AS energy,
        MIN(padded_lowest) AS padded_lowest,
        MAX(padded_highest) AS padded_highest,
        MAX(unit_highest) AS unit_highest
    FROM chosen
    GROUP BY process_id, target, position
)

SELECT
    f.process_id, $tier AS tier, f.target AS number, f.position,
    f.units, f.exceedances, f.rows, f.elements, f.clip_elements, f.clip_low, f.clip_high,
    f.nan, f.inf, f.padded_elements, f.ratio_0, f.ratio_1, f.ratio_2, f.ratio_3, f.ratio_4,
    f.ratio_5, f.ratio_6, f.ratio_7, f.ratio_8, f.ratio_9, f.ratio_10, f.units_measured,
    f.units_not_finite, f.lowest, f.highest, f.ratio_sum, f.clipped_energy, f.energy,
    f.padded_lowest, f.padded_highest, f.unit_highest,
    COALESCE(s.cells, []) AS cells
FROM figures AS f
LEFT JOIN sketches AS s USING (process_id, target, position)
