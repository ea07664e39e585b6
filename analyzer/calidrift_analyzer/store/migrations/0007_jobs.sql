-- Recalibration as a state machine. Steps are only ever added, so a kill leaves the last whole step;
-- numbers are given in SQL, not by sequences, because one process writes and copies keep them.
CREATE TABLE jobs (
    job BIGINT NOT NULL PRIMARY KEY,
    model VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    trigger VARCHAR NOT NULL,
    cause VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    created TIMESTAMP_NS NOT NULL
);

CREATE TABLE job_steps (
    step BIGINT NOT NULL PRIMARY KEY,
    job BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    happened TIMESTAMP_NS NOT NULL,
    sentence VARCHAR NOT NULL,
    document VARCHAR NOT NULL
);

-- Jobs as they stand: the last step says where, `attempts` how often its state was begun.
CREATE VIEW job_states AS
WITH last AS (
    SELECT
        job,
        MAX(step) AS step,
        MIN(actor) FILTER (WHERE event = 'approved') AS approved_by,
        BOOL_OR(event = 'cancel_requested') AS cancel_requested
    FROM job_steps
    GROUP BY job
),

begins AS (
    SELECT job, state, COUNT(*) AS attempts
    FROM job_steps
    WHERE event IN ('entered', 'resumed')
    GROUP BY job, state
)

SELECT
    j.job, j.model, j.kind, j.trigger, j.cause, j.actor, j.created, s.state,
    s.happened AS updated, s.sentence, COALESCE(b.attempts, 0) AS attempts, l.approved_by,
    l.cancel_requested
FROM jobs AS j
JOIN last AS l ON l.job = j.job
JOIN job_steps AS s ON s.step = l.step
LEFT JOIN begins AS b ON b.job = j.job AND b.state = s.state;

-- The ledger of alarms and alerts: the same one, told again, never leads to a second job.
CREATE TABLE triggers (
    key VARCHAR NOT NULL PRIMARY KEY,
    source VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    seen TIMESTAMP_NS NOT NULL,
    job BIGINT,
    sentence VARCHAR NOT NULL
);

CREATE TABLE audit (
    entry BIGINT NOT NULL PRIMARY KEY,
    happened TIMESTAMP_NS NOT NULL,
    actor VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    sentence VARCHAR NOT NULL
);

-- The newest row of a model counts; an empty model stands for all of them.
CREATE TABLE freezes (
    entry BIGINT NOT NULL PRIMARY KEY,
    model VARCHAR NOT NULL,
    frozen BOOLEAN NOT NULL,
    actor VARCHAR NOT NULL,
    happened TIMESTAMP_NS NOT NULL,
    sentence VARCHAR NOT NULL
);

CREATE TABLE tasks (
    task VARCHAR NOT NULL PRIMARY KEY,
    started TIMESTAMP_NS NOT NULL,
    ended TIMESTAMP_NS NOT NULL,
    succeeded BOOLEAN NOT NULL,
    sentence VARCHAR NOT NULL,
    last_success TIMESTAMP_NS,
    runs BIGINT NOT NULL,
    failures BIGINT NOT NULL
);

-- Captured requests that lie beside another process, out of reach of this one; only told about.
CREATE TABLE remote_captures (
    process VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    captured TIMESTAMP_NS NOT NULL,
    segment VARCHAR,
    size BIGINT NOT NULL,
    PRIMARY KEY (process, name)
);
