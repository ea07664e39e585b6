-- Forget the listing of a folder; the same transaction writes the new one.
DELETE FROM captures
WHERE starts_with(path, $folder)
