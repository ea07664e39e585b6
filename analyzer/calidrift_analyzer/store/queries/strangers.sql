SELECT table_name
FROM duckdb_tables()
WHERE table_name <> 'schema_migrations' AND NOT internal
ORDER BY table_name
LIMIT 1
