-- The same process in both archives; `same` where both say that it is watched in the same way.
SELECT
    o.process_id AS source,
    p.process_id AS target,
    p.process,
    p.model,
    p.profile,
    p.instrument = o.instrument AND (
        SELECT COALESCE(LIST(n.point ORDER BY n.position), [])
        FROM process_points AS n
        WHERE n.process_id = p.process_id
    ) = (
        SELECT COALESCE(LIST(n.point ORDER BY n.position), [])
        FROM incoming_archive.process_points AS n
        WHERE n.process_id = o.process_id
    ) AS same
FROM incoming_archive.processes AS o
JOIN processes AS p ON p.process = o.process AND p.model = o.model AND p.profile = o.profile
ORDER BY source
