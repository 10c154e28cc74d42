//! Corruptions of tables.

use Of::{Api, Payment, Stock};

/// Which database is damaged.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Of {
    Stock,
    Payment,
    Api,
}

/// A corruption: the table it is in, which is put back afterwards, what is done to it, and the rules that it breaks.
pub(crate) struct Damage(
    pub(crate) Of,
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) &'static [&'static str],
);

/// `PAID`, `CANCELLED`, `DECLINED` and `GHOST` stand for orders, `SKU` for the product.
pub(crate) const DAMAGES: [Damage; 27] = [
    // Units from nowhere.
    Damage(
        Stock,
        "items",
        "ALTER TABLE items DROP CONSTRAINT items_balanced; UPDATE items SET sold = sold + 1 WHERE sku = 'SKU'",
        &["item_is_its_ledger", "item_is_sum_of_holds", "units_conserved"],
    ),
    // A sold unit is for sale again.
    Damage(
        Stock,
        "items",
        "UPDATE items SET sold = sold - 1, available = available + 1 WHERE sku = 'SKU'",
        &["item_is_its_ledger", "item_is_sum_of_holds", "product_is_item"],
    ),
    // An entry held more than was sold: no longer right there, whatever comes later.
    Damage(
        Stock,
        "ledger_batches",
        "UPDATE ledger_batches SET entries = (SELECT jsonb_agg(CASE WHEN e->'fact'->>'order_id' = 'PAID'
                AND e->'fact'->>'type' = 'reserved' THEN jsonb_set(e, '{fact,units}', '2') ELSE e END ORDER BY n)::text
           FROM jsonb_array_elements(entries::jsonb) WITH ORDINALITY AS x (e, n)) WHERE entries LIKE '%PAID%'",
        &["item_is_its_ledger", "ledger_adds_up"],
    ),
    // More was held than there was, and given back before anybody looked.
    Damage(
        Stock,
        "ledger_batches",
        "UPDATE ledger_batches SET entries = (SELECT jsonb_agg(CASE WHEN e->'fact'->>'order_id' = 'CANCELLED'
                THEN jsonb_set(e, '{fact,units}', '1000') ELSE e END ORDER BY n)::text
           FROM jsonb_array_elements(entries::jsonb) WITH ORDINALITY AS x (e, n)) WHERE entries LIKE '%CANCELLED%'",
        &["hold_is_in_ledger", "ledger_adds_up"],
    ),
    // The end of a ledger is lost.
    Damage(
        Stock,
        "ledger_batches",
        "UPDATE ledger_batches SET entries = (SELECT coalesce(jsonb_agg(e ORDER BY n), '[]')::text
           FROM jsonb_array_elements(entries::jsonb) WITH ORDINALITY AS x (e, n)
          WHERE e->>'sku' <> 'SKU' OR e->>'version' <> (SELECT version::text FROM items WHERE sku = 'SKU'))
         WHERE entries LIKE '%SKU%'",
        &["hold_is_in_ledger", "version_counts_entries"],
    ),
    // Entries have other numbers.
    Damage(
        Stock,
        "ledger_batches",
        "UPDATE ledger_batches SET entries = (SELECT jsonb_agg(CASE WHEN e->>'sku' = 'SKU'
                AND e->>'version' = (SELECT version::text FROM items WHERE sku = 'SKU')
                THEN jsonb_set(e, '{version}', '1000000') ELSE e END ORDER BY n)::text
           FROM jsonb_array_elements(entries::jsonb) WITH ORDINALITY AS x (e, n)) WHERE entries LIKE '%SKU%'",
        &["ledger_adds_up"],
    ),
    // A hold is somebody else's.
    Damage(
        Stock,
        "holds",
        "UPDATE holds SET order_id = 'GHOST' WHERE order_id = 'PAID'",
        &["hold_is_in_ledger", "orders_keep_their_units"],
    ),
    // A cancelled order has its units still.
    Damage(
        Stock,
        "holds",
        "UPDATE holds SET status = 'sold', confirmed_version = version, returned_version = NULL
          WHERE order_id = 'CANCELLED'",
        &["hold_is_in_ledger", "item_is_sum_of_holds", "no_orphan_holds"],
    ),
    Damage(
        Stock,
        "holds",
        "UPDATE holds SET quantity = quantity + 1 WHERE order_id = 'PAID'",
        &["hold_is_in_ledger", "item_is_sum_of_holds", "orders_keep_their_units"],
    ),
    Damage(
        Stock,
        "holds",
        "DELETE FROM holds WHERE order_id = 'PAID'",
        &["hold_is_in_ledger", "item_is_sum_of_holds", "orders_keep_their_units"],
    ),
    // A paid order without its charge.
    Damage(
        Payment,
        "done_charges",
        "DELETE FROM done_charges WHERE order_id = 'PAID'",
        &["books_agree", "charge_is_its_movements", "order_shows_its_money", "paid_is_charged"],
    ),
    Damage(
        Payment,
        "done_charges",
        "UPDATE done_charges SET amount = amount + 1 WHERE order_id = 'PAID'",
        &["books_agree", "charge_is_its_movements", "charged_what_is_due", "order_shows_its_money"],
    ),
    // Two charges for one order.
    Damage(
        Payment,
        "done_charges",
        "INSERT INTO done_charges SELECT partition_id + 1, order_id, customer_id, amount, state, currency, body
           FROM done_charges WHERE order_id = 'PAID'",
        &["books_agree", "charge_is_its_movements", "charge_of_one_order"],
    ),
    Damage(
        Payment,
        "done_charges",
        "UPDATE done_charges SET customer_id = 'GHOST' WHERE order_id = 'PAID'",
        &["charge_of_its_customer"],
    ),
    // The refund of a cancelled order is forgotten.
    Damage(
        Payment,
        "done_charges",
        "UPDATE done_charges SET state = 'approved' WHERE order_id = 'CANCELLED'",
        &["books_agree", "charge_is_its_movements", "money_conserved", "order_shows_its_money"],
    ),
    // Money moved twice, never, and for somebody else.
    Damage(
        Payment,
        "money_movements",
        "INSERT INTO money_movements SELECT partition_id, epoch, -seq - 1, recorded_at, (SELECT jsonb_agg(e)::text
           FROM jsonb_array_elements(entries::jsonb) AS e WHERE e->>'order_id' = 'PAID')
           FROM money_movements WHERE entries LIKE '%PAID%'",
        &["charge_is_its_movements"],
    ),
    Damage(
        Payment,
        "money_movements",
        "UPDATE money_movements SET entries = (SELECT coalesce(jsonb_agg(e), '[]')::text
           FROM jsonb_array_elements(entries::jsonb) AS e WHERE e->>'order_id' <> 'PAID') WHERE entries LIKE '%PAID%'",
        &["charge_is_its_movements"],
    ),
    Damage(
        Payment,
        "money_movements",
        "INSERT INTO money_movements SELECT partition_id, epoch, -seq - 1, recorded_at,
                (SELECT replace(jsonb_agg(e)::text, 'PAID', 'DECLINED')
           FROM jsonb_array_elements(entries::jsonb) AS e WHERE e->>'order_id' = 'PAID')
           FROM money_movements WHERE entries LIKE '%PAID%'",
        &["charge_is_its_movements", "charge_of_one_order"],
    ),
    // The provider's book: a double charge, another sum, a refund that nobody asked for.
    Damage(
        Payment,
        "simulated_charges",
        "INSERT INTO simulated_charges SELECT charge_key || '-2', order_id, amount, refunded, outcome, currency, refund_key
           FROM simulated_charges WHERE order_id = 'PAID'",
        &["books_agree", "charged_once"],
    ),
    Damage(
        Payment,
        "simulated_charges",
        "UPDATE simulated_charges SET amount = amount + 1 WHERE order_id = 'PAID'",
        &["books_agree"],
    ),
    Damage(
        Payment,
        "simulated_charges",
        "UPDATE simulated_charges SET refunded = amount, refund_key = 'key' WHERE order_id = 'PAID'",
        &["books_agree"],
    ),
    Damage(
        Payment,
        "simulated_charges",
        "UPDATE simulated_charges SET outcome = 'approved' WHERE order_id = 'DECLINED'",
        &["books_agree"],
    ),
    // The projection: an order is lost, is behind, contradicts itself; one was never there.
    Damage(Api, "orders", "DELETE FROM orders WHERE order_id = 'PAID'", &["projection_agrees"]),
    Damage(
        Api,
        "orders",
        "UPDATE orders SET version = version - 1,
                document = replace(document, '\"version\":' || version, '\"version\":' || version - 1)
          WHERE order_id = 'PAID'",
        &["projection_agrees"],
    ),
    Damage(
        Api,
        "orders",
        "UPDATE orders SET state = 'RETURNED' WHERE order_id = 'PAID'",
        &["row_is_document"],
    ),
    Damage(
        Api,
        "orders",
        "INSERT INTO orders SELECT 'GHOST', customer_id, created_at, version, state, is_final, document
           FROM orders WHERE order_id = 'PAID'",
        &["order_shows_its_money", "orders_keep_their_units", "paid_is_charged", "projection_agrees"],
    ),
    // An order was answered 202 and never reached the log.
    Damage(
        Api,
        "intake",
        "INSERT INTO intake SELECT 'GHOST', customer_id, fingerprint, publish_before, true, command
           FROM intake WHERE order_id = 'PAID'",
        &["accepted_is_logged"],
    ),
];
