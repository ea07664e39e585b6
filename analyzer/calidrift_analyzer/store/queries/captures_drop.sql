-- Forget the listing of a folder, and where else the same files were listed: there a folder lay before
-- it was moved, or a copy of it. The same transaction writes the new listing.
DELETE FROM captures
WHERE starts_with(path, $folder)
    OR process || '/' || parse_filename(path, FALSE, 'forward_slash')
    IN (SELECT UNNEST($files::VARCHAR[]))
