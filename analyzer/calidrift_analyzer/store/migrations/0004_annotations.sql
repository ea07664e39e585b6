-- What people say about a model. Rows are only ever added: together they are the record of who
-- muted what, until when and why, who ended it, and what was deployed when. Numbers are given where
-- a row is added: one process writes, and a compacted copy of the file begins its sequences anew.

-- The latest row about a (model, point) says what holds: `until` is when the mute ends by itself,
-- NULL where the row ends the mute before it. A `point` may be a pattern; NULL is the whole model.
CREATE TABLE mutes (
    id BIGINT NOT NULL,
    model VARCHAR NOT NULL,
    point VARCHAR,
    created TIMESTAMP_NS NOT NULL,
    until TIMESTAMP_NS,
    reason VARCHAR NOT NULL,
    author VARCHAR NOT NULL
);

CREATE TABLE markers (
    id BIGINT NOT NULL,
    model VARCHAR NOT NULL,
    happened TIMESTAMP_NS NOT NULL,
    created TIMESTAMP_NS NOT NULL,
    text VARCHAR NOT NULL,
    author VARCHAR NOT NULL
);
