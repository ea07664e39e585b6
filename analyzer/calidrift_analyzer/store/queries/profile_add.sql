INSERT INTO profiles (digest, added, document)
VALUES ($digest, make_timestamp_ns($added), $document)
ON CONFLICT DO NOTHING
