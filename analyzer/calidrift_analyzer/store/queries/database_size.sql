SELECT block_size * free_blocks, block_size * total_blocks
FROM pragma_database_size()
WHERE database_name = current_database()
