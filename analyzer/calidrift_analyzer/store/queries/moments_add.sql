INSERT INTO moments
SELECT $model, $profile, make_timestamp_ns(UNNEST(CAST($moments AS BIGINT[])))
ON CONFLICT DO NOTHING
