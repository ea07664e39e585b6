-- The outbox of moves that another deployment system is told of. A row is written together with
-- the move; tries are only ever added, so that a kill between move and hook leaves it to be done.
CREATE TABLE deployments (
    entry BIGINT NOT NULL PRIMARY KEY,
    model VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    previous VARCHAR,
    action VARCHAR NOT NULL,
    registry VARCHAR NOT NULL,
    manifest VARCHAR NOT NULL,
    created TIMESTAMP_NS NOT NULL
);

CREATE TABLE deployment_tries (
    number BIGINT NOT NULL PRIMARY KEY,
    entry BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    happened TIMESTAMP_NS NOT NULL,
    sentence VARCHAR NOT NULL,
    output VARCHAR NOT NULL
);

-- Moves as they stand: the last try says where.
CREATE VIEW deployment_states AS
WITH last AS (
    SELECT
        entry, MAX(number) AS number,
        COUNT(*) FILTER (WHERE state IN ('attempted', 'delivered')) AS attempts
    FROM deployment_tries
    GROUP BY entry
)

SELECT
    d.entry, d.model, d.version, d.previous, d.action, d.registry, d.manifest, d.created,
    COALESCE(t.state, 'pending') AS state,
    COALESCE(l.attempts, 0) AS attempts,
    COALESCE(t.happened, d.created) AS updated,
    COALESCE(t.sentence, 'not tried yet') AS sentence,
    COALESCE(t.output, '') AS output
FROM deployments AS d
LEFT JOIN last AS l ON l.entry = d.entry
LEFT JOIN deployment_tries AS t ON t.number = l.number;
