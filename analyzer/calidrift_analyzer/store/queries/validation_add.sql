INSERT INTO validations (model, candidate, created, accepted, document)
VALUES ($model, $candidate, make_timestamp_ns($created_ns), $accepted, $document)
