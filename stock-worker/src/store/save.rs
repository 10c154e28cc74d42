//! Writing what a batch changed, set-based: one row per changed item and hold, and one of the ledger.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain_types::{OrderId, RequestId, Sku};
use messaging::Tx;
use serde::Serialize;
use stock_domain::{Change, ChangeOutcome, Decision, Entry, Fact, Hold, HoldKey, Item, Stock};
use uuid::Uuid;

use super::StoreError;
use super::codes::{StoredStatus, change_code, status};

/// The key of a batch's row in the ledger: rows are in the order of commit.
#[derive(Debug, Clone, Copy)]
pub struct LedgerRow {
    /// The ownership that writes it.
    pub epoch: i64,
    /// Its number within that.
    pub seq: i64,
}

/// An entry of the ledger, as it is stored.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerEntry {
    /// Whose.
    pub sku: Sku,
    /// The version that it made.
    pub version: i64,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a batch changed; the stock itself has the new state.
#[derive(Debug)]
pub struct Changed {
    row: LedgerRow,
    entries: Vec<LedgerEntry>,
    items: Vec<ChangedItem>,
    item_index: HashMap<Sku, usize>,
    new_holds: HashSet<HoldKey>,
    old_holds: HashSet<HoldKey>,
    changes: Vec<(RequestId, Change)>,
}

/// An item that a batch changed.
#[derive(Debug)]
pub struct ChangedItem {
    /// Which.
    pub sku: Sku,
    /// Its version before the batch; 0: it is new.
    pub before: i64,
    product_changed: bool,
}

impl Changed {
    /// Nothing yet; `row` is where the ledger goes on.
    pub(crate) fn new(row: LedgerRow) -> Self {
        Self {
            row,
            entries: Vec::new(),
            items: Vec::new(),
            item_index: HashMap::new(),
            new_holds: HashSet::new(),
            old_holds: HashSet::new(),
            changes: Vec::new(),
        }
    }

    /// Notes a decision that is about to be applied to `stock`.
    pub(crate) fn note(&mut self, stock: &Stock, decision: &Decision) {
        if let Some((sku, entry)) = &decision.entry {
            let before = stock.item(sku).map_or(0, |item| item.version);
            let index = *self.item_index.entry(sku.clone()).or_insert_with(|| {
                self.items.push(ChangedItem { sku: sku.clone(), before, product_changed: false });
                self.items.len() - 1
            });
            if let Some(item) = self.items.get_mut(index) {
                item.product_changed |= matches!(entry.fact, Fact::ProductDefined { .. });
            }
            self.entries.push(LedgerEntry { sku: sku.clone(), version: before + 1, entry: entry.clone() });
        }
        if let Some((key, _)) = &decision.hold {
            if stock.hold(key).is_none() {
                self.new_holds.insert(*key);
            } else if !self.new_holds.contains(key) {
                self.old_holds.insert(*key);
            }
        }
        self.changes.extend(decision.change.clone());
    }

    /// The products whose level changed, in the order of their first change.
    pub(crate) fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.items.iter().map(|item| &item.sku)
    }

    /// What happened, in the order in which it was decided.
    pub fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    /// The items that changed, in the order of their first change.
    pub fn items(&self) -> &[ChangedItem] {
        &self.items
    }

    /// Holds that are not stored yet.
    pub fn new_holds(&self) -> impl Iterator<Item = &HoldKey> {
        self.new_holds.iter()
    }

    /// Holds that are stored.
    pub fn old_holds(&self) -> impl Iterator<Item = &HoldKey> {
        self.old_holds.iter()
    }

    /// Admins' changes to remember.
    pub fn changes(&self) -> &[(RequestId, Change)] {
        &self.changes
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.new_holds.is_empty()
            && self.old_holds.is_empty()
            && self.changes.is_empty()
    }
}

/// Saves a batch. Durable once the transaction commits.
pub(super) async fn save(
    tx: &mut Tx,
    partition: i32,
    stock: &Stock,
    changed: &Changed,
) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    save_changes(tx, partition, &changed.changes).await?;
    save_products(tx, partition, stock, changed).await?;
    save_new_items(tx, partition, stock, changed).await?;
    save_batch(tx, partition, stock, changed).await
}

fn item<'a>(stock: &'a Stock, changed: &ChangedItem) -> Result<&'a Item, StoreError> {
    stock.item(&changed.sku).ok_or_else(|| StoreError::ItemMissing(changed.sku.clone()))
}

/// Items as columns.
#[derive(Default)]
struct Items<'a> {
    skus: Vec<&'a str>,
    before: Vec<i64>,
    initial: Vec<i64>,
    restocked: Vec<i64>,
    available: Vec<i64>,
    held: Vec<i64>,
    sold: Vec<i64>,
    granted: Vec<i64>,
    versions: Vec<i64>,
    product_versions: Vec<i64>,
    updated_at: Vec<DateTime<Utc>>,
    causes: Vec<Uuid>,
}

impl<'a> Items<'a> {
    fn of(stock: &'a Stock, changed: impl Iterator<Item = &'a ChangedItem>) -> Result<Self, StoreError> {
        let mut items = Self::default();
        for changed in changed {
            let item = item(stock, changed)?;
            items.skus.push(item.sku.as_str());
            items.before.push(changed.before);
            items.initial.push(item.initial);
            items.restocked.push(item.restocked);
            items.available.push(item.available);
            items.held.push(item.held);
            items.sold.push(item.sold);
            items.granted.push(item.granted);
            items.versions.push(item.version);
            items.product_versions.push(item.product_version);
            items.updated_at.push(item.updated_at.to_utc());
            items.causes.push(item.cause.uuid());
        }
        Ok(items)
    }
}

async fn save_new_items(
    tx: &mut Tx,
    partition: i32,
    stock: &Stock,
    changed: &Changed,
) -> Result<(), StoreError> {
    let new = Items::of(stock, changed.items.iter().filter(|item| item.before == 0))?;
    if new.skus.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO items (partition_id, sku, initial, restocked, available, held, sold, granted, version, \
         product_version, updated_at, cause) \
         SELECT $1, n.* FROM UNNEST($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[], $12::uuid[]) AS n",
    )
    .bind(partition)
    .bind(new.skus)
    .bind(new.initial)
    .bind(new.restocked)
    .bind(new.available)
    .bind(new.held)
    .bind(new.sold)
    .bind(new.granted)
    .bind(new.versions)
    .bind(new.product_versions)
    .bind(new.updated_at)
    .bind(new.causes)
    .execute(tx.writer().await?)
    .await?;
    Ok(())
}

async fn save_products(
    tx: &mut Tx,
    partition: i32,
    stock: &Stock,
    changed: &Changed,
) -> Result<(), StoreError> {
    let (mut skus, mut products) = (Vec::new(), Vec::new());
    for changed in changed.items.iter().filter(|item| item.product_changed) {
        let product = serde_json::to_string(item(stock, changed)?.product.as_ref());
        products.push(product.map_err(|source| StoreError::unreadable_because("product", source))?);
        skus.push(changed.sku.as_str());
    }
    if skus.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO products (partition_id, sku, product) SELECT $1, n.* FROM UNNEST($2::text[], $3::text[]) AS n \
         ON CONFLICT (partition_id, sku) DO UPDATE SET product = excluded.product",
    )
    .bind(partition)
    .bind(skus)
    .bind(products)
    .execute(tx.writer().await?)
    .await?;
    Ok(())
}

async fn save_changes(
    tx: &mut Tx,
    partition: i32,
    changes: &[(RequestId, Change)],
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let outcome = |change: &Change| match change.outcome {
        ChangeOutcome::Applied { version } => (Some(version), None),
        ChangeOutcome::Refused { code } => (None, Some(change_code(code))),
    };
    sqlx::query(
        "INSERT INTO changes (partition_id, request_id, sku, quantity, applied_version, refused_code) \
         SELECT $1, n.* FROM UNNEST($2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) AS n",
    )
    .bind(partition)
    .bind(changes.iter().map(|(request_id, _)| request_id.uuid()).collect::<Vec<_>>())
    .bind(changes.iter().map(|(_, change)| change.sku.as_str()).collect::<Vec<_>>())
    .bind(changes.iter().map(|(_, change)| change.quantity).collect::<Vec<_>>())
    .bind(changes.iter().map(|(_, change)| outcome(change).0).collect::<Vec<_>>())
    .bind(changes.iter().map(|(_, change)| outcome(change).1).collect::<Vec<_>>())
    .execute(tx.writer().await?)
    .await?;
    Ok(())
}

/// Holds as columns.
#[derive(Default)]
struct Holds<'a> {
    orders: Vec<Uuid>,
    lines: Vec<i16>,
    skus: Vec<&'a str>,
    customers: Vec<Option<Uuid>>,
    quantities: Vec<i32>,
    statuses: Vec<&'static str>,
    reasons: Vec<Option<&'static str>>,
    versions: Vec<i64>,
    confirmed: Vec<Option<i64>>,
    returned: Vec<Option<i64>>,
}

impl<'a> Holds<'a> {
    fn of(stock: &'a Stock, keys: &HashSet<HoldKey>) -> Result<Self, StoreError> {
        let mut holds = Self::default();
        for key in keys {
            let hold = stock.hold(key).ok_or(StoreError::Changed)?;
            holds.push(key.order_id, i16::from(key.line.0), hold)?;
        }
        Ok(holds)
    }

    fn push(&mut self, order_id: OrderId, line: i16, hold: &'a Hold) -> Result<(), StoreError> {
        let StoredStatus { status, reason, confirmed_version, returned_version } = status(hold.status);
        let units = hold.asked.map_or(0, |asked| asked.units.get());
        let units = i32::try_from(units).map_err(|source| StoreError::unreadable_because("hold", source))?;
        self.orders.push(order_id.uuid());
        self.lines.push(line);
        self.skus.push(hold.sku.as_str());
        self.customers.push(hold.asked.map(|asked| asked.customer_id.uuid()));
        self.quantities.push(units);
        self.statuses.push(status);
        self.reasons.push(reason);
        self.versions.push(hold.version);
        self.confirmed.push(confirmed_version);
        self.returned.push(returned_version);
        Ok(())
    }
}

/// Writes items, holds and ledger in one statement, the last one.
async fn save_batch(tx: &mut Tx, partition: i32, stock: &Stock, changed: &Changed) -> Result<(), StoreError> {
    let items = Items::of(stock, changed.items.iter().filter(|item| item.before > 0))?;
    let new = Holds::of(stock, &changed.new_holds)?;
    let old = Holds::of(stock, &changed.old_holds)?;
    let ledger = (!changed.entries.is_empty()).then(|| serde_json::to_string(&changed.entries)).transpose();
    let ledger = ledger.map_err(|source| StoreError::unreadable_because("ledger entry", source))?;
    let save = sqlx::query(include_str!("save.sql"))
        .bind(partition)
        .bind(items.skus)
        .bind(items.before)
        .bind(items.restocked)
        .bind(items.available)
        .bind(items.held)
        .bind(items.sold)
        .bind(items.granted)
        .bind(items.versions)
        .bind(items.product_versions)
        .bind(items.updated_at)
        .bind(items.causes)
        .bind(new.orders)
        .bind(new.lines)
        .bind(new.skus)
        .bind(new.customers)
        .bind(new.quantities)
        .bind(new.statuses)
        .bind(new.reasons)
        .bind(new.versions)
        .bind(new.confirmed)
        .bind(new.returned)
        .bind(old.orders)
        .bind(old.lines)
        .bind(old.statuses)
        .bind(old.confirmed)
        .bind(old.returned)
        .bind(changed.row.epoch)
        .bind(changed.row.seq)
        .bind(ledger);
    tx.last(save).await?;
    Ok(())
}
