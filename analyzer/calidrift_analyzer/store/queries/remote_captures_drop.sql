DELETE FROM remote_captures
WHERE process = $process AND model = $model
