INSERT INTO reference_segments
SELECT $profile, $segment, $units
ON CONFLICT DO NOTHING
