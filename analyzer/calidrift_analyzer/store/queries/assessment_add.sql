INSERT INTO assessments (model, profile, created, verdict, document)
VALUES ($model, $profile, make_timestamp_ns($created), $verdict, $document)
