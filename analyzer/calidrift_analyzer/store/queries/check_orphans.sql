-- Rows whose window, process or point is not there.
SELECT process_id, number
FROM recorded_points AS w
ANTI JOIN recorded AS r USING (process_id, tier, number)
UNION
SELECT process_id, number
FROM recorded_segments AS w
ANTI JOIN recorded AS r USING (process_id, tier, number)
UNION
SELECT process_id, number
FROM recorded_points AS w
ANTI JOIN process_points AS n USING (process_id, position)
UNION
SELECT process_id, number
FROM recorded AS w
ANTI JOIN processes AS p USING (process_id)
UNION
SELECT process_id, number
FROM recorded AS w
ANTI JOIN batches AS b USING (batch)
ORDER BY process_id, number
