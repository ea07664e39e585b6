INSERT INTO process_points BY NAME
SELECT p.process_id, n.* EXCLUDE (process_id)
FROM incoming_archive.process_points AS n
JOIN incoming_archive.processes AS o USING (process_id)
JOIN processes AS p ON p.process = o.process AND p.model = o.model AND p.profile = o.profile
ANTI JOIN process_points AS known ON known.process_id = p.process_id
