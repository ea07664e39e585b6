-- Processes that only the other archive knows, under new keys.
INSERT INTO processes BY NAME
SELECT
    (SELECT COALESCE(MAX(process_id), 0) FROM processes)
    + ROW_NUMBER() OVER (ORDER BY o.process_id) AS process_id,
    o.* EXCLUDE (process_id)
FROM incoming_archive.processes AS o
ANTI JOIN processes AS p USING (process, model, profile)
