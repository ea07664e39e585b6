SELECT COALESCE(MAX(batch), 0) + 1
FROM batches
