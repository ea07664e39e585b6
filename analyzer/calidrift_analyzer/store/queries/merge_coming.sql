CREATE OR REPLACE TEMP TABLE coming (source INTEGER, process_id INTEGER, number BIGINT)
