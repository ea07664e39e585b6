SELECT epoch_ns(MAX(arrived)) AS arrived_ns
FROM batches
