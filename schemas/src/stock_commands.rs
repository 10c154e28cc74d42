//! `stock-commands`: what the stock worker is asked to do; all commands of a sku are in one partition.

use domain_types::{Attempt, CustomerId, LineNumber, Quantity, RequestId, Sku, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::messages;
use crate::{ProductData, Topic};

messages! {
    /// A command to the stock worker.
    StockCommand on Some(Topic::StockCommands);
    /// Hold units for an order's line.
    ReserveStock = 1,
    /// Sell the held units of an order's line.
    ConfirmStock = 1,
    /// Give the held units of an order's line back; before the reserve it leaves a tombstone.
    ReleaseStock = 1,
    /// Give the sold units of an order's line back.
    RestockStock = 1,
    /// Admin: register or edit a product.
    DefineProduct = 1,
    /// Admin: add or take away available units.
    ChangeStock = 1,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// See [`StockCommand::ReserveStock`]. The envelope names the order; a hold's key is (order, line).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReserveStock {
    /// The order's line.
    pub line: LineNumber,
    /// The try.
    pub attempt: Attempt,
    /// Of what; the record's key.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
    /// For whom: limits per customer count these.
    pub customer_id: CustomerId,
    /// Log time of `PlaceOrder`: sale windows are judged by it.
    pub ordered_at: Timestamp,
}

/// See [`StockCommand::ConfirmStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmStock {
    /// The order's line.
    pub line: LineNumber,
    /// The try.
    pub attempt: Attempt,
    /// Of what; the record's key.
    pub sku: Sku,
    /// Only a failure is answered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub silent: bool,
}

/// See [`StockCommand::ReleaseStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseStock {
    /// The order's line.
    pub line: LineNumber,
    /// The try.
    pub attempt: Attempt,
    /// Of what; the record's key.
    pub sku: Sku,
}

/// See [`StockCommand::RestockStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestockStock {
    /// The order's line.
    pub line: LineNumber,
    /// The try.
    pub attempt: Attempt,
    /// Of what; the record's key.
    pub sku: Sku,
}

/// See [`StockCommand::DefineProduct`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DefineProduct {
    /// The request; it is applied once, and its answer names it.
    pub request_id: RequestId,
    /// Which product; the record's key.
    pub sku: Sku,
    /// What is known about it from now on.
    pub product: ProductData,
    /// Units to begin with; used when the product is new, ignored afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_stock: Option<u32>,
}

/// See [`StockCommand::ChangeStock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeStock {
    /// The request; it is applied once, and its answer names it.
    pub request_id: RequestId,
    /// Which product; the record's key.
    pub sku: Sku,
    /// Units to add; negative: to take away. Available units never go below 0.
    pub quantity: i64,
    /// Why.
    pub reason: String,
}
