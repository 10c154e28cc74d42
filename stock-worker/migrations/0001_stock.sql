-- The stock of each partition of stock-commands; only the partition's owner writes it.
-- Every key leads with the partition, so that partitions can be spread over databases.

CREATE TABLE items (
    partition_id    int         NOT NULL,
    sku             text        NOT NULL COLLATE "C",
    initial         bigint      NOT NULL,
    restocked       bigint      NOT NULL,
    available       bigint      NOT NULL,
    held            bigint      NOT NULL,
    sold            bigint      NOT NULL,
    granted         bigint      NOT NULL,
    version         bigint      NOT NULL,
    product_version bigint      NOT NULL,
    updated_at      timestamptz NOT NULL,
    cause           uuid        NOT NULL,
    CONSTRAINT items_pkey PRIMARY KEY (partition_id, sku),
    CONSTRAINT items_available_not_negative CHECK (available >= 0),
    CONSTRAINT items_held_not_negative CHECK (held >= 0),
    CONSTRAINT items_sold_not_negative CHECK (sold >= 0),
    CONSTRAINT items_balanced CHECK (initial + restocked = available + held + sold)
) WITH (fillfactor = 50);   -- updated by every batch: leave room on the page

COMMENT ON TABLE items IS 'what there is of each product';
COMMENT ON COLUMN items.version IS 'number of ledger entries';
COMMENT ON COLUMN items.granted IS 'initial + restocked + all units that orders ever gave back';
COMMENT ON COLUMN items.cause IS 'message id of the command behind the last entry';

-- Apart from items, so that a sale does not write it again and again.
CREATE TABLE products (
    partition_id int  NOT NULL,
    sku          text NOT NULL COLLATE "C",
    product      text NOT NULL,   -- JSON; not jsonb, which refuses \u0000
    CONSTRAINT products_pkey PRIMARY KEY (partition_id, sku)
);

CREATE TABLE holds (
    partition_id      int      NOT NULL,
    order_id          uuid     NOT NULL,
    line              smallint NOT NULL,
    quantity          int      NOT NULL,
    customer_id       uuid,
    version           bigint   NOT NULL,
    confirmed_version bigint,
    returned_version  bigint,
    sku               text     NOT NULL COLLATE "C",
    status            text     NOT NULL COLLATE "C",
    reason            text     COLLATE "C",
    CONSTRAINT holds_pkey PRIMARY KEY (partition_id, order_id, line),
    CONSTRAINT holds_status CHECK (CASE status
        WHEN 'held'      THEN confirmed_version IS NULL AND returned_version IS NULL
        WHEN 'sold'      THEN confirmed_version IS NOT NULL AND returned_version IS NULL
        WHEN 'released'  THEN confirmed_version IS NULL AND returned_version IS NOT NULL
        WHEN 'restocked' THEN returned_version IS NOT NULL
        WHEN 'refused'   THEN reason IS NOT NULL
        WHEN 'tombstone' THEN true
        ELSE false END),
    CONSTRAINT holds_asked CHECK (CASE status
        WHEN 'tombstone' THEN customer_id IS NULL AND quantity = 0
        ELSE customer_id IS NOT NULL AND quantity > 0 END)
) WITH (fillfactor = 80);

COMMENT ON TABLE holds IS 'what each line of an order has; kept as long as the log of their commands';
COMMENT ON COLUMN holds.version IS 'the item''s version when the line was first heard of';

-- Limits per customer. Status is not in it: confirming a hold then need not touch the index.
CREATE INDEX holds_customer ON holds (partition_id, sku, customer_id);

CREATE TABLE ledger (
    partition_id  int    NOT NULL,
    sku           text   NOT NULL COLLATE "C",
    first_version bigint NOT NULL,
    entries       text   NOT NULL,
    CONSTRAINT ledger_pkey PRIMARY KEY (partition_id, sku, first_version)
);
ALTER TABLE ledger ALTER COLUMN entries SET STORAGE EXTERNAL;   -- compressing costs more than it saves

COMMENT ON TABLE ledger IS 'append-only; one row per batch and sku';
COMMENT ON COLUMN ledger.entries IS 'JSON array; the n-th one made version first_version + n';

CREATE TABLE changes (
    partition_id    int    NOT NULL,
    request_id      uuid   NOT NULL,
    sku             text   NOT NULL COLLATE "C",
    quantity        bigint,
    applied_version bigint,
    refused_code    text   COLLATE "C",
    CONSTRAINT changes_pkey PRIMARY KEY (partition_id, request_id),
    CONSTRAINT changes_answered CHECK ((applied_version IS NULL) <> (refused_code IS NULL))
);

COMMENT ON TABLE changes IS 'answers to admins, by request; quantity is null for an edit';
