//! `stock-events`: answers to admins; `stock-levels`: what is left of each product.

use domain_types::{RequestId, Sku, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::messages;
use crate::{ProductData, Topic};

messages! {
    /// An answer to an admin's change.
    StockEvent on Some(Topic::StockEvents);
    /// The change is made.
    StockChangeApplied = 1,
    /// The change is refused; nothing was changed.
    StockChangeRefused = 1,
}

messages! {
    /// A product and its stock.
    StockLevelMessage on Some(Topic::StockLevels);
    /// The product and its stock after an entry of its ledger. Readers ignore a version that is not newer.
    StockLevel = 1,
}

/// See [`StockEvent::StockChangeApplied`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockChangeApplied {
    /// The admin's request.
    pub request_id: RequestId,
    /// The product.
    pub sku: Sku,
    /// Units added or taken away; `None` for an edit of product data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// The sku's ledger entries with this one: the level of this version shows the change.
    pub stock_version: i64,
}

/// Why an admin's change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StockChangeCode {
    /// No such product.
    UnknownSku,
    /// More units would be taken away than are available.
    NotEnoughAvailable,
    /// A new product needs `initial_stock`.
    InitialStockRequired,
    /// The number of units would overflow.
    TooManyUnits,
    /// The product data can't be used (sale window, price, limit); the api checks it before.
    InvalidProduct,
}

/// See [`StockEvent::StockChangeRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockChangeRefused {
    /// The admin's request.
    pub request_id: RequestId,
    /// The product.
    pub sku: Sku,
    /// Units that were to be added or taken away; `None` for an edit of product data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// Why.
    pub code: StockChangeCode,
}

/// See [`StockLevelMessage::StockLevel`]. `initial + restocked = available + held + sold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockLevel {
    /// The product; the record's key.
    pub sku: Sku,
    /// The number of entries in the sku's ledger.
    pub version: i64,
    /// The version of the last entry that changed the product's data.
    pub product_version: i64,
    /// What is known about it.
    pub product: ProductData,
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
    /// Log time of the command behind the last entry.
    pub updated_at: Timestamp,
}
