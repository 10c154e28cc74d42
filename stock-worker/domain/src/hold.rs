//! Holds: what an order's line has of an item.

use domain_types::{CustomerId, LineNumber, OrderId, Quantity, Sku};
use schemas::ReserveRefusal;

/// A hold's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldKey {
    /// The order.
    pub order_id: OrderId,
    /// Its line.
    pub line: LineNumber,
}

/// What a reserve asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// For whom.
    pub customer_id: CustomerId,
    /// How many.
    pub units: Quantity,
}

/// What is known about an order's line. It lives at least as long as the log of its commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of what.
    pub sku: Sku,
    /// What the reserve asked for; `None`: a tombstone.
    pub asked: Option<Asked>,
    /// The item's version when the line was first heard of, with the entry it led to (0: no such item).
    pub version: i64,
    /// Where it stands.
    pub status: HoldStatus,
}

/// Where a hold stands. Each answer that was given is in it, so that a repeat is answered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldStatus {
    /// The units are held.
    Held,
    /// The units are sold.
    Sold {
        /// The item's version with the confirmation.
        confirmed: i64,
    },
    /// The units came back before they were sold.
    Released {
        /// The item's version with the release.
        released: i64,
    },
    /// The units came back by a restock.
    Restocked {
        /// The item's version with the confirmation; `None`: they were only held.
        confirmed: Option<i64>,
        /// The item's version with the restock.
        restocked: i64,
    },
    /// Nothing was held.
    Refused {
        /// Why.
        reason: ReserveRefusal,
    },
    /// It was released before it was reserved: a late reserve is refused.
    Tombstone,
}

impl Hold {
    /// Units that count towards the customer's limit now: held and sold ones.
    pub fn counted_units(&self) -> i64 {
        match self.status {
            HoldStatus::Held | HoldStatus::Sold { .. } => {
                self.asked.map_or(0, |asked| i64::from(asked.units.get()))
            }
            HoldStatus::Released { .. }
            | HoldStatus::Restocked { .. }
            | HoldStatus::Refused { .. }
            | HoldStatus::Tombstone => 0,
        }
    }
}
