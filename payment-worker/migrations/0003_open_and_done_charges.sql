-- A charge whose provider call is pending has a row of `open_charges`; once the call is answered the row goes, and one of `done_charges`
-- comes. In one table each charge was written twice, the second time with less to say: so vacuum found room in old pages, where new charges
-- went, which were then read from disk; and as the time of the call was indexed, each charge was twice in the primary key.

CREATE TABLE open_charges (
    partition_id int    NOT NULL,
    order_id     uuid   NOT NULL,
    customer_id  uuid   NOT NULL,
    amount       bigint NOT NULL,
    next_call_at bigint NOT NULL,
    state        text   NOT NULL COLLATE "C",
    currency     text   NOT NULL COLLATE "C",
    body         text   NOT NULL,
    CONSTRAINT open_charges_pkey PRIMARY KEY (partition_id, order_id),
    CONSTRAINT open_charges_amount_not_negative CHECK (amount >= 0),
    CONSTRAINT open_charges_state CHECK (state IN ('requested', 'unknown', 'closing', 'refund_requested'))
);
-- Rows come and go all the time: their room is found soon, and kept for those that come next.
ALTER TABLE open_charges SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, vacuum_truncate = false);

INSERT INTO open_charges (partition_id, order_id, customer_id, amount, next_call_at, state, currency, body)
SELECT partition_id, order_id, customer_id, amount, next_call_at, state, currency, body FROM charges WHERE next_call_at IS NOT NULL;

-- What a successor has to go on with. The condition always holds: it is there so that this index is not one by which an order can be looked
-- up, which is as cheap as its key by the statistics of a table that was empty when it was vacuumed.
CREATE INDEX open_charges_due ON open_charges (partition_id, next_call_at) WHERE next_call_at IS NOT NULL;

COMMENT ON TABLE open_charges IS 'charges whose next provider call is pending';
COMMENT ON COLUMN open_charges.amount IS 'minor units';
COMMENT ON COLUMN open_charges.next_call_at IS 'not to be made before; milliseconds since 1970';
COMMENT ON COLUMN open_charges.body IS 'method, number of calls, and the state with who waits for an answer';

-- Its index and `charges_state` go with the column.
DELETE FROM charges WHERE next_call_at IS NOT NULL;
ALTER TABLE charges DROP COLUMN next_call_at;
ALTER TABLE charges RENAME TO done_charges;
ALTER TABLE done_charges RENAME CONSTRAINT charges_pkey TO done_charges_pkey;
ALTER TABLE done_charges RENAME CONSTRAINT charges_amount_not_negative TO done_charges_amount_not_negative;
ALTER TABLE done_charges RENAME CONSTRAINT charges_terms TO done_charges_terms;
ALTER TABLE done_charges ADD CONSTRAINT done_charges_state CHECK (CASE state
    WHEN 'barred' THEN amount IS NULL AND currency IS NULL AND body IS NULL
    ELSE state IN ('approved', 'declined', 'closed', 'refunded', 'failed') END);
ALTER TABLE done_charges RESET (fillfactor);

COMMENT ON TABLE done_charges IS 'charges for which no provider call is pending; kept as long as the log of their commands';
COMMENT ON COLUMN done_charges.body IS 'method, number of calls, and the state';

CREATE VIEW charges AS
SELECT partition_id, order_id, customer_id, amount, next_call_at, state, currency, body FROM open_charges
UNION ALL
SELECT partition_id, order_id, customer_id, amount, NULL, state, currency, body FROM done_charges;

COMMENT ON VIEW charges IS 'what each order has to do with money';
