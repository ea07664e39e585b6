INSERT INTO schema_migrations (number, name, written_by, applied)
VALUES (?, ?, ?, make_timestamp_ns(?))
