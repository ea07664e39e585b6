SELECT number, name, written_by
FROM schema_migrations
ORDER BY number
