-- The book of the simulated payment provider. It stands for another company's system: the worker never reads it, only
-- the provider behind the port and the audit do.

CREATE TABLE simulated_charges (
    charge_key text   NOT NULL COLLATE "C",
    order_id   uuid   NOT NULL,
    amount     bigint,
    refunded   bigint NOT NULL DEFAULT 0,
    outcome    text   NOT NULL COLLATE "C",
    currency   text   COLLATE "C",
    refund_key text   COLLATE "C",
    CONSTRAINT simulated_charges_pkey PRIMARY KEY (charge_key),
    CONSTRAINT simulated_charges_outcome
        CHECK (outcome IN ('approved', 'declined', 'over_limit', 'abandoned', 'voided')),
    CONSTRAINT simulated_charges_refund CHECK (
        refunded BETWEEN 0 AND CASE outcome WHEN 'approved' THEN amount ELSE 0 END
        AND (refund_key IS NOT NULL OR refunded = 0))
);

COMMENT ON TABLE simulated_charges IS 'one row per idempotency key of a charge, whatever was asked how often; voided: no charge with this key may ever take money';
COMMENT ON COLUMN simulated_charges.order_id IS 'what the merchant called it; two approved rows of an order would be a double charge';
