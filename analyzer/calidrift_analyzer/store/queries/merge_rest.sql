-- What a coarse window that was made of a difference stands for.
UPDATE windows
SET first = $first, holds = $holds, coarsened = $coarse
WHERE process_id = $process_id AND number = $number
