INSERT INTO segment_counts BY NAME
SELECT c.process_id, r.* EXCLUDE (process_id, tier)
FROM incoming_archive.recorded_segments AS r
JOIN coming AS c ON c.source = r.process_id AND c.number = r.number
