//! The ledger: each change of an item is one entry.

use domain_types::{CustomerId, LineNumber, MessageId, OrderId, Quantity, RequestId, Timestamp};
use schemas::ProductData;
use serde::{Deserialize, Serialize};

/// The command that is being decided on, as its record shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The command's message id.
    pub message_id: MessageId,
    /// Its offset in the item's partition of `stock-commands`.
    pub offset: i64,
    /// Its log time.
    pub at: Timestamp,
}

/// One change of an item. The n-th entry of a sku makes version n.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Log time of the command behind it.
    pub at: Timestamp,
    /// Offset of the command behind it.
    pub offset: i64,
    /// The command behind it.
    pub cause: MessageId,
    /// What happened.
    pub fact: Fact,
}

/// What happened to an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Fact {
    /// An admin registered or edited the product.
    ProductDefined {
        /// The admin's request.
        request_id: RequestId,
        /// What is known about it from now on.
        product: Box<ProductData>,
        /// Units to begin with; only in the first entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initial: Option<u32>,
    },
    /// An admin added available units, or took some away.
    StockChanged {
        /// The admin's request.
        request_id: RequestId,
        /// Units added; negative: taken away.
        quantity: i64,
        /// Why.
        reason: String,
    },
    /// Available units became held.
    Reserved {
        /// The order.
        order_id: OrderId,
        /// Its line.
        line: LineNumber,
        /// For whom.
        customer_id: CustomerId,
        /// How many.
        units: Quantity,
    },
    /// Held units became sold.
    Confirmed {
        /// The order.
        order_id: OrderId,
        /// Its line.
        line: LineNumber,
        /// How many.
        units: Quantity,
    },
    /// Held units became available.
    Released {
        /// The order.
        order_id: OrderId,
        /// Its line.
        line: LineNumber,
        /// How many.
        units: Quantity,
    },
    /// Sold (or still held) units became available.
    Restocked {
        /// The order.
        order_id: OrderId,
        /// Its line.
        line: LineNumber,
        /// How many.
        units: Quantity,
        /// What they were before.
        from: GivenBackFrom,
    },
}

/// What restocked units were before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenBackFrom {
    /// Their confirmation never came.
    Held,
    /// Sold.
    Sold,
}
