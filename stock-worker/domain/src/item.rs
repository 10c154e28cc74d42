//! An item: a product and its units.

use std::sync::Arc;

use domain_types::{MessageId, Quantity, Sku, Timestamp};
use schemas::{ProductData, StockLevel};

use crate::{Entry, Fact, GivenBackFrom, StockError};

/// The most units an item may have (`initial + restocked`). Far from what 64 bits, or the doubles of scripts
/// and browsers, can hold exactly, so that `granted` has room to grow.
pub const MAX_UNITS: i64 = 1_000_000_000_000;

/// A product and its stock. `initial + restocked = available + held + sold`, none of the last three below 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which one.
    pub sku: Sku,
    /// What is known about it.
    pub product: Arc<ProductData>,
    /// Units it began with.
    pub initial: i64,
    /// Units that admins added, less those they took away.
    pub restocked: i64,
    /// Units that can be reserved.
    pub available: i64,
    /// Units held by orders on their way.
    pub held: i64,
    /// Units sold.
    pub sold: i64,
    /// `initial + restocked` and all units that orders ever gave back.
    pub granted: i64,
    /// The number of ledger entries.
    pub version: i64,
    /// The version of the last entry that changed the product's data.
    pub product_version: i64,
    /// Log time of the command behind the last entry.
    pub updated_at: Timestamp,
    /// The command behind the last entry.
    pub cause: MessageId,
}

impl Item {
    /// The item after an entry of its ledger; `before` is `None` for the first one. Fails, and is then to be
    /// thrown away, if the entry does not fit: that is a bug, or a ledger that is not this item's.
    pub fn evolve(before: Option<Self>, sku: &Sku, entry: &Entry) -> Result<Self, StockError> {
        let version = before.as_ref().map_or(0, |item| item.version);
        let unbalanced = || StockError::Unbalanced { sku: sku.clone(), version };
        let after = match (before, &entry.fact) {
            (None, Fact::ProductDefined { product, initial: Some(initial), .. }) => {
                Some(Self::first(sku, product, *initial, entry))
            }
            (None, _) => None,
            (Some(item), fact) => item.applied(fact),
        };
        let mut item = after.ok_or_else(unbalanced)?;
        item.version = version.checked_add(1).ok_or_else(unbalanced)?;
        if matches!(entry.fact, Fact::ProductDefined { .. }) {
            item.product_version = item.version;
        }
        item.updated_at = entry.at;
        item.cause = entry.cause;
        if item.is_balanced() { Ok(item) } else { Err(unbalanced()) }
    }

    fn first(sku: &Sku, product: &ProductData, initial: u32, entry: &Entry) -> Self {
        let initial = i64::from(initial);
        Self {
            sku: sku.clone(),
            product: Arc::new(product.clone()),
            initial,
            restocked: 0,
            available: initial,
            held: 0,
            sold: 0,
            granted: initial,
            version: 0,
            product_version: 0,
            updated_at: entry.at,
            cause: entry.cause,
        }
    }

    /// Counts what happened; `None` if the numbers do not fit.
    fn applied(mut self, fact: &Fact) -> Option<Self> {
        let count = |units: Quantity| i64::from(units.get());
        match fact {
            Fact::ProductDefined { initial: Some(_), .. } => return None,
            Fact::ProductDefined { product, initial: None, .. } => {
                self.product = Arc::new(ProductData::clone(product));
            }
            Fact::StockChanged { quantity, .. } => {
                self.available = self.available.checked_add(*quantity)?;
                self.restocked = self.restocked.checked_add(*quantity)?;
                self.granted = self.granted.checked_add(*quantity)?;
            }
            Fact::Reserved { units, .. } => {
                self.available = self.available.checked_sub(count(*units))?;
                self.held = self.held.checked_add(count(*units))?;
            }
            Fact::Confirmed { units, .. } => {
                self.held = self.held.checked_sub(count(*units))?;
                self.sold = self.sold.checked_add(count(*units))?;
            }
            Fact::Released { units, .. } | Fact::Restocked { units, from: GivenBackFrom::Held, .. } => {
                self.held = self.held.checked_sub(count(*units))?;
                self.available = self.available.checked_add(count(*units))?;
                self.granted = self.granted.checked_add(count(*units))?;
            }
            Fact::Restocked { units, from: GivenBackFrom::Sold, .. } => {
                self.sold = self.sold.checked_sub(count(*units))?;
                self.available = self.available.checked_add(count(*units))?;
                self.granted = self.granted.checked_add(count(*units))?;
            }
        }
        Some(self)
    }

    /// Whether every unit is somewhere, and nowhere twice.
    pub fn is_balanced(&self) -> bool {
        let total = self.initial.checked_add(self.restocked);
        let counted = self.available.checked_add(self.held).and_then(|units| units.checked_add(self.sold));
        total.is_some_and(|total| (0..=MAX_UNITS).contains(&total))
            && total == counted
            && self.available >= 0
            && self.held >= 0
            && self.sold >= 0
    }

    /// What `stock-levels` says about it.
    pub fn level(&self) -> StockLevel {
        StockLevel {
            sku: self.sku.clone(),
            version: self.version,
            product_version: self.product_version,
            product: ProductData::clone(&self.product),
            initial: self.initial,
            restocked: self.restocked,
            available: self.available,
            held: self.held,
            sold: self.sold,
            granted: self.granted,
            updated_at: self.updated_at,
        }
    }
}
