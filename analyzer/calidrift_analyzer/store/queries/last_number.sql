SELECT GREATEST(
    COALESCE((SELECT MAX(number) FROM windows WHERE process_id = $process_id), -1),
    COALESCE((SELECT MAX(number) FROM rollups WHERE process_id = $process_id), -1)
)
