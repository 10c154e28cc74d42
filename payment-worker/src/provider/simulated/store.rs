//! The book's table.

use std::collections::{BTreeMap, BTreeSet};

use domain_types::{Money, OrderId};
use schemas::DeclineReason;
use sqlx::PgPool;
use sqlx::types::Uuid;

use super::outcomes::Fate;

/// A key that is to be written, unless it is there.
#[derive(Debug, Clone)]
pub(super) struct NewCharge {
    pub(super) key: String,
    pub(super) order_id: OrderId,
    /// `None`: nobody asked for money, the key is barred.
    pub(super) terms: Option<Money>,
    pub(super) fate: Fate,
}

/// A refund that is to be written, unless it is there.
#[derive(Debug, Clone)]
pub(super) struct NewRefund {
    pub(super) charge_key: String,
    pub(super) refund_key: String,
    pub(super) amount: Money,
}

const fn name(fate: Fate) -> &'static str {
    match fate {
        Fate::Approved => "approved",
        Fate::Declined(DeclineReason::Declined) => "declined",
        Fate::Declined(DeclineReason::OverLimit) => "over_limit",
        Fate::Declined(DeclineReason::Abandoned) => "abandoned",
        Fate::Voided => "voided",
    }
}

fn fate(name: &str) -> Option<Fate> {
    Some(match name {
        "approved" => Fate::Approved,
        "declined" => Fate::Declined(DeclineReason::Declined),
        "over_limit" => Fate::Declined(DeclineReason::OverLimit),
        "abandoned" => Fate::Declined(DeclineReason::Abandoned),
        "voided" => Fate::Voided,
        _ => return None,
    })
}

/// Writes the keys that are not there yet, and returns them.
pub(super) async fn insert<'a>(
    pool: &PgPool,
    charges: impl Iterator<Item = &'a NewCharge>,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let (mut keys, mut orders, mut amounts) = (Vec::new(), Vec::<Uuid>::new(), Vec::new());
    let (mut outcomes, mut currencies) = (Vec::new(), Vec::new());
    for charge in charges {
        keys.push(charge.key.as_str());
        orders.push(charge.order_id.uuid());
        amounts.push(charge.terms.map(|terms| terms.amount));
        currencies.push(charge.terms.map(|terms| terms.currency.code()));
        outcomes.push(name(charge.fate));
    }
    if keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let written: Vec<String> = sqlx::query_scalar(
        "INSERT INTO simulated_charges (charge_key, order_id, amount, outcome, currency)
         SELECT * FROM UNNEST($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[])
         ON CONFLICT ON CONSTRAINT simulated_charges_pkey DO NOTHING
         RETURNING charge_key",
    )
    .bind(&keys)
    .bind(&orders)
    .bind(&amounts)
    .bind(&outcomes)
    .bind(&currencies)
    .fetch_all(pool)
    .await?;
    Ok(written.into_iter().collect())
}

/// Writes the refunds that are not there yet; returns the charges that are refunded under the very key.
pub(super) async fn refund<'a>(
    pool: &PgPool,
    refunds: impl Iterator<Item = &'a NewRefund>,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let (mut charge_keys, mut refund_keys) = (Vec::new(), Vec::new());
    let (mut amounts, mut currencies) = (Vec::new(), Vec::new());
    for refund in refunds {
        charge_keys.push(refund.charge_key.as_str());
        refund_keys.push(refund.refund_key.as_str());
        amounts.push(refund.amount.amount);
        currencies.push(refund.amount.currency.code());
    }
    if charge_keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let refunded: Vec<String> = sqlx::query_scalar(
        "UPDATE simulated_charges c
            SET refund_key = new.refund_key, refunded = new.amount
           FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::text[])
                AS new (charge_key, refund_key, amount, currency)
          CROSS JOIN LATERAL (
             SELECT f.ctid FROM simulated_charges AS f WHERE f.charge_key = new.charge_key OFFSET 0
             ) AS found (row_id)
          WHERE c.ctid = found.row_id AND c.outcome = 'approved' AND c.currency = new.currency
            AND CASE WHEN c.refund_key IS NULL THEN new.amount BETWEEN 0 AND c.amount
                     ELSE c.refund_key = new.refund_key AND c.refunded = new.amount END
         RETURNING c.charge_key",
    )
    .bind(&charge_keys)
    .bind(&refund_keys)
    .bind(&amounts)
    .bind(&currencies)
    .fetch_all(pool)
    .await?;
    Ok(refunded.into_iter().collect())
}

/// What stands under the keys.
pub(super) async fn fates(
    pool: &PgPool,
    keys: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Fate>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys: Vec<&str> = keys.iter().copied().collect();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT charge_key, outcome FROM simulated_charges WHERE charge_key = ANY($1)")
            .bind(&keys)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().filter_map(|(key, outcome)| Some((key, fate(&outcome)?))).collect())
}
