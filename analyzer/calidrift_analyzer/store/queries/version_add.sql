INSERT INTO versions (model, version, action, created, profile, document)
VALUES ($model, $version, $action, make_timestamp_ns($created_ns), $profile, $document)
