-- The sagas of each partition of order-saga; only the partition's owner writes them.
-- Every key leads with the partition, so that partitions can be spread over databases.

CREATE TABLE sagas (
    partition_id int         NOT NULL,
    order_id     uuid        NOT NULL,
    version      bigint      NOT NULL,
    next_due_at  timestamptz,
    next_timer   text        COLLATE "C",
    journal      bigint[]    NOT NULL,
    state        text        NOT NULL,   -- JSON; not jsonb, which is written larger and refuses \u0000
    CONSTRAINT sagas_pkey PRIMARY KEY (partition_id, order_id),
    CONSTRAINT sagas_timer_has_a_name CHECK (next_due_at IS NULL OR next_timer IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE sagas ALTER COLUMN state SET STORAGE EXTERNAL;   -- compressing costs more than it saves

COMMENT ON TABLE sagas IS 'one row per order, kept for ever: late replies and replays need it';
COMMENT ON COLUMN sagas.version IS 'the order''s public version';
COMMENT ON COLUMN sagas.next_due_at IS 'when its timer is to be fired; null: none armed, or fired and on its way through the log';
COMMENT ON COLUMN sagas.next_timer IS 'the armed timer';
COMMENT ON COLUMN sagas.journal IS 'first_offset of each saga_history row with entries of this order, in order';
COMMENT ON COLUMN sagas.state IS 'the saga package''s Saga';

CREATE INDEX sagas_due ON sagas (partition_id, next_due_at) WHERE next_due_at IS NOT NULL;

CREATE TABLE saga_history (
    partition_id int    NOT NULL,
    first_offset bigint NOT NULL,
    body         bytea  NOT NULL,
    CONSTRAINT saga_history_pkey PRIMARY KEY (partition_id, first_offset)
);
ALTER TABLE saga_history ALTER COLUMN body SET STORAGE EXTERNAL;   -- compressed already

COMMENT ON TABLE saga_history IS 'append-only; one row per batch that changed something';
COMMENT ON COLUMN saga_history.first_offset IS 'offset of the batch''s first record that changed something';
COMMENT ON COLUMN saga_history.body IS 'entries in the order they were decided; order_orchestrator::history::decode reads it';
