SELECT segment, units
FROM reference_segments
WHERE profile = $profile
ORDER BY segment
