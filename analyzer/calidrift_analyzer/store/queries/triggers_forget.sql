DELETE FROM triggers
WHERE status = 'resolved' AND epoch_ns(seen) < $until
