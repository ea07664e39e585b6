INSERT INTO point_windows BY NAME
SELECT c.process_id, r.* EXCLUDE (process_id, tier)
FROM incoming_archive.recorded_points AS r
JOIN coming AS c ON c.source = r.process_id AND c.number = r.number
