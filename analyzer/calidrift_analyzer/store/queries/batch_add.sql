-- Arrival never runs back, whatever the analyzer's clock does.
INSERT INTO batches
SELECT $batch, GREATEST(make_timestamp_ns($now), MAX(arrived))
FROM batches
ON CONFLICT DO NOTHING
