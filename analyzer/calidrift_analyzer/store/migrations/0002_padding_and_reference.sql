-- Padded positions of masked inputs, decode steps, the comparison with a reference model, and the
-- reasons for drops that came with them. What was stored before had none of them.
ALTER TABLE windows ADD COLUMN steps BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN compared BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN ranked BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN agreed BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN noise_ppb BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN distance_ppb BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN drop_stateful_call BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN drop_rate_limit BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN drop_redacted BIGINT DEFAULT 0;
ALTER TABLE windows ADD COLUMN drop_no_key BIGINT DEFAULT 0;
ALTER TABLE point_windows ADD COLUMN padded_elements BIGINT DEFAULT 0;
ALTER TABLE point_windows ADD COLUMN padded_lowest DOUBLE DEFAULT 'inf'::DOUBLE;
ALTER TABLE point_windows ADD COLUMN padded_highest DOUBLE DEFAULT '-inf'::DOUBLE;
