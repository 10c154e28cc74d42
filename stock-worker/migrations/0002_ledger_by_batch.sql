-- A row of the ledger is a batch, not a batch's entries of one sku: two rows and two index entries less for each order, and
-- the order in which everything was decided.
-- A build from before this migration waits beside one from after it: a statement that fits no more is tried again.

ALTER TABLE ledger RENAME TO ledger_by_sku;
ALTER TABLE ledger_by_sku RENAME CONSTRAINT ledger_pkey TO ledger_by_sku_pkey;

CREATE TABLE ledger (
    partition_id int    NOT NULL,
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    entries      text   NOT NULL,   -- JSON; not jsonb, which refuses \u0000
    CONSTRAINT ledger_pkey PRIMARY KEY (partition_id, epoch, seq)
);

COMMENT ON TABLE ledger IS 'append-only; one row per batch that changed an item';
COMMENT ON COLUMN ledger.epoch IS 'the ownership that wrote it; 0: from before there were rows by batch';
COMMENT ON COLUMN ledger.entries IS 'JSON array of {sku, version (which the entry made), at, offset, cause, fact}, in the order they were decided';

-- PostgreSQL's own compression costs more than it saves; lz4, which not every server was built with, does not.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE ledger ALTER COLUMN entries SET COMPRESSION lz4;
    ELSE
        ALTER TABLE ledger ALTER COLUMN entries SET STORAGE EXTERNAL;
    END IF;
END $$;

-- The entries are spliced as texts: json can hold what jsonb and text can't.
INSERT INTO ledger (partition_id, epoch, seq, entries)
SELECT partition_id, 0, row_number() OVER (PARTITION BY partition_id ORDER BY sku, first_version),
       (SELECT '[' || string_agg('{"sku":' || to_json(sku)::text || ',"version":' || first_version + n - 1 || ',' || substr(e::text, 2),
                                 ',' ORDER BY n) || ']'
          FROM json_array_elements(entries::json) WITH ORDINALITY AS x (e, n))
  FROM ledger_by_sku;

DROP TABLE ledger_by_sku;
