SELECT process_id
FROM processes
WHERE process = $process AND model = $model AND profile = $profile
