SELECT key, source, model, status, epoch_ns(seen) AS seen_ns, job, sentence
FROM triggers
WHERE key = $key
