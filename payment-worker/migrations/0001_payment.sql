-- The charges of each partition of payment-commands; only the partition's owner writes them.
-- Every key leads with the partition, so that partitions can be spread over databases.

CREATE TABLE charges (
    partition_id int    NOT NULL,
    order_id     uuid   NOT NULL,
    customer_id  uuid   NOT NULL,
    amount       bigint,
    next_call_at bigint,
    state        text   NOT NULL COLLATE "C",
    currency     text   COLLATE "C",
    body         text,   -- JSON; not jsonb, which refuses \u0000
    CONSTRAINT charges_pkey PRIMARY KEY (partition_id, order_id),
    CONSTRAINT charges_amount_not_negative CHECK (amount >= 0),
    CONSTRAINT charges_state CHECK (CASE state
        WHEN 'barred' THEN amount IS NULL AND currency IS NULL AND body IS NULL AND next_call_at IS NULL
        WHEN 'requested'        THEN next_call_at IS NOT NULL
        WHEN 'unknown'          THEN next_call_at IS NOT NULL
        WHEN 'closing'          THEN next_call_at IS NOT NULL
        WHEN 'refund_requested' THEN next_call_at IS NOT NULL
        WHEN 'approved'         THEN next_call_at IS NULL
        WHEN 'declined'         THEN next_call_at IS NULL
        WHEN 'closed'           THEN next_call_at IS NULL
        WHEN 'refunded'         THEN next_call_at IS NULL
        WHEN 'failed'           THEN next_call_at IS NULL
        ELSE false END),
    CONSTRAINT charges_terms CHECK (state = 'barred' OR (amount IS NOT NULL AND currency IS NOT NULL AND body IS NOT NULL))
) WITH (fillfactor = 70);   -- each row is written twice: when the charge is asked for, and when its fate is known

COMMENT ON TABLE charges IS 'what each order has to do with money; kept as long as the log of their commands';
COMMENT ON COLUMN charges.amount IS 'minor units; null for the tombstone of a charge that was closed before it was seen (barred)';
COMMENT ON COLUMN charges.next_call_at IS 'a provider call is pending and not to be made before; milliseconds since 1970';
COMMENT ON COLUMN charges.body IS 'method, number of calls, and the state with who waits for an answer';

-- What a successor has to go on with.
CREATE INDEX charges_pending ON charges (partition_id, next_call_at) WHERE next_call_at IS NOT NULL;

CREATE TABLE money_movements (
    partition_id int    NOT NULL,
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    recorded_at  bigint NOT NULL,
    entries      text   NOT NULL,
    CONSTRAINT money_movements_pkey PRIMARY KEY (partition_id, epoch, seq)
);
ALTER TABLE money_movements ALTER COLUMN entries SET STORAGE EXTERNAL;   -- compressing costs more than it saves

COMMENT ON TABLE money_movements IS 'append-only; one row per transaction in which provider answers moved money';
COMMENT ON COLUMN money_movements.epoch IS 'the ownership that wrote it';
COMMENT ON COLUMN money_movements.recorded_at IS 'milliseconds since 1970';
COMMENT ON COLUMN money_movements.entries IS 'JSON array of {order_id, kind (charged, refunded), amount, reference}';
