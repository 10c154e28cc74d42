-- The ledger by batch: one row instead of one for each sku of the batch, and the order in which everything was decided.
-- Entries from before stay in `ledger`, where replicas of a build from before go on writing until they are replaced; its versions say
-- where each belongs. A later release carries them over and drops it.

CREATE TABLE ledger_batches (
    partition_id int    NOT NULL,
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    entries      text   NOT NULL,   -- JSON; not jsonb, which refuses \u0000
    CONSTRAINT ledger_batches_pkey PRIMARY KEY (partition_id, epoch, seq)
);

COMMENT ON TABLE ledger_batches IS 'append-only; one row per batch that changed an item';
COMMENT ON COLUMN ledger_batches.epoch IS 'the ownership that wrote it';
COMMENT ON COLUMN ledger_batches.entries IS 'JSON array of {sku, version (which the entry made), at, offset, cause, fact}, in the order they were decided';
COMMENT ON TABLE ledger IS 'entries from before there was ledger_batches, by batch and sku';

-- PostgreSQL's own compression costs more than it saves; lz4, which not every server was built with, does not.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE ledger_batches ALTER COLUMN entries SET COMPRESSION lz4;
    ELSE
        ALTER TABLE ledger_batches ALTER COLUMN entries SET STORAGE EXTERNAL;
    END IF;
END $$;
