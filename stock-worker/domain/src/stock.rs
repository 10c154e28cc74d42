//! A partition's stock, as much of it as a batch needs.

use std::collections::HashMap;

use domain_types::{CustomerId, OrderId, RequestId, Sku};
use schemas::{ConfirmStock, OrderSagaMessage, StockChangeCode, StockCommand, StockEvent};

use crate::{Cause, Entry, Hold, HoldKey, Item, StockError};

/// Items, holds and remembered admin changes.
///
/// Who fills it must load, for each command that will be decided: the item, if it exists; the hold, if it
/// exists; an admin's change, if it is remembered; and, where the item has a limit per customer or a command
/// may give it one, the customer's units (0 too).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    pub(crate) items: HashMap<Sku, Item>,
    pub(crate) holds: HashMap<HoldKey, Hold>,
    pub(crate) changes: HashMap<RequestId, Change>,
    /// Units that count towards a limit: held and sold ones.
    pub(crate) customer_units: HashMap<Sku, HashMap<CustomerId, i64>>,
}

/// An admin's change that was answered; a repeat is answered alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The product.
    pub sku: Sku,
    /// Units to add or take away; `None` for an edit of product data.
    pub quantity: Option<i64>,
    /// The answer.
    pub outcome: ChangeOutcome,
}

/// How an admin's change was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It is made.
    Applied {
        /// The item's version with it.
        version: i64,
    },
    /// Nothing was changed.
    Refused {
        /// Why.
        code: StockChangeCode,
    },
}

/// What is said about a command, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A reply to the order's saga.
    Saga(OrderId, OrderSagaMessage),
    /// An answer to an admin.
    Admin(StockEvent),
}

/// Whether the answer is to be published: a silent command wants only failures.
pub fn is_wanted(command: &StockCommand, answer: &Answer) -> bool {
    let is_silent = matches!(command, StockCommand::ConfirmStock(ConfirmStock { silent: true, .. }));
    !is_silent || !matches!(answer, Answer::Saga(_, OrderSagaMessage::StockConfirmed(_)))
}

/// What a command leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The change of the item, if any.
    pub entry: Option<(Sku, Entry)>,
    /// The hold as it is from now on, if it is new or changed.
    pub hold: Option<(HoldKey, Hold)>,
    /// The admin's change to be remembered, if it is new.
    pub change: Option<(RequestId, Change)>,
    /// The answer; there always is one.
    pub answer: Answer,
}

impl Stock {
    /// Adds an item that was stored.
    pub fn load_item(&mut self, item: Item) {
        self.items.insert(item.sku.clone(), item);
    }

    /// Adds a hold that was stored.
    pub fn load_hold(&mut self, key: HoldKey, hold: Hold) {
        self.holds.insert(key, hold);
    }

    /// Adds an admin's change that was stored.
    pub fn load_change(&mut self, request_id: RequestId, change: Change) {
        self.changes.insert(request_id, change);
    }

    /// Says how many held and sold units of a product a customer has.
    pub fn load_customer_units(&mut self, sku: Sku, customer_id: CustomerId, units: i64) {
        self.customer_units.entry(sku).or_default().insert(customer_id, units);
    }

    /// Forgets everything but the items, as between two batches.
    pub fn keep_items_only(&mut self) {
        self.holds.clear();
        self.changes.clear();
        self.customer_units.clear();
    }

    /// Forgets the items that `keep` does not want.
    pub fn retain_items(&mut self, keep: impl Fn(&Item) -> bool) {
        self.items.retain(|_, item| keep(item));
    }

    /// The number of items in it.
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// An item in it.
    pub fn item(&self, sku: &Sku) -> Option<&Item> {
        self.items.get(sku)
    }

    /// A hold in it.
    pub fn hold(&self, key: &HoldKey) -> Option<&Hold> {
        self.holds.get(key)
    }

    /// An admin's change in it.
    pub fn change(&self, request_id: &RequestId) -> Option<&Change> {
        self.changes.get(request_id)
    }

    /// All items in it, in no order.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// All holds in it, in no order.
    pub fn holds(&self) -> impl Iterator<Item = (&HoldKey, &Hold)> {
        self.holds.iter()
    }

    /// What a command leads to. `order_id` is the one that the command's envelope names.
    pub fn decide(
        &self,
        order_id: Option<OrderId>,
        command: &StockCommand,
        cause: Cause,
    ) -> Result<Decision, StockError> {
        let order = || order_id.ok_or(StockError::NoOrder);
        match command {
            StockCommand::ReserveStock(command) => self.reserve(order()?, command, cause),
            StockCommand::ConfirmStock(command) => self.confirm(order()?, command, cause),
            StockCommand::ReleaseStock(command) => self.release(order()?, command, cause),
            StockCommand::RestockStock(command) => self.restock(order()?, command, cause),
            StockCommand::DefineProduct(command) => self.define(command, cause),
            StockCommand::ChangeStock(command) => self.change_stock(command, cause),
        }
    }

    /// Applies a decision. After an error the stock is as it was before.
    pub fn evolve(&mut self, decision: &Decision) -> Result<(), StockError> {
        if let Some((sku, entry)) = &decision.entry {
            let item = Item::evolve(self.items.get(sku).cloned(), sku, entry)?;
            self.items.insert(sku.clone(), item);
        }
        if let Some((key, hold)) = &decision.hold {
            let before = self.holds.insert(*key, hold.clone());
            self.count(before.as_ref(), hold);
        }
        if let Some((request_id, change)) = &decision.change {
            self.changes.insert(*request_id, change.clone());
        }
        Ok(())
    }

    /// Keeps the customer's units of the item current, if they are loaded.
    fn count(&mut self, before: Option<&Hold>, after: &Hold) {
        let Some(asked) = after.asked else { return };
        let customers = self.customer_units.get_mut(&after.sku);
        if let Some(units) = customers.and_then(|customers| customers.get_mut(&asked.customer_id)) {
            *units += after.counted_units() - before.map_or(0, Hold::counted_units);
        }
    }

    /// The customer's held and sold units of a product.
    pub(crate) fn customer_units(&self, sku: &Sku, customer_id: CustomerId) -> Result<i64, StockError> {
        self.customer_units
            .get(sku)
            .and_then(|customers| customers.get(&customer_id))
            .copied()
            .ok_or_else(|| StockError::CustomerUnitsNotLoaded(sku.clone()))
    }

    /// The version that the next entry of a hold's item makes.
    pub(crate) fn next_version(&self, sku: &Sku) -> Result<i64, StockError> {
        let item = self.items.get(sku).ok_or_else(|| StockError::ItemMissing(sku.clone()))?;
        Ok(item.version.saturating_add(1))
    }

    /// The item's present version; 0 if there is none.
    pub(crate) fn version(&self, sku: &Sku) -> i64 {
        self.items.get(sku).map_or(0, |item| item.version)
    }
}
