CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER NOT NULL PRIMARY KEY,
    name VARCHAR NOT NULL,
    written_by VARCHAR NOT NULL,
    applied TIMESTAMP_NS NOT NULL
)
