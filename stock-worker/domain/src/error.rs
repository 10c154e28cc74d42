//! What must not happen.

use domain_types::Sku;

/// A command that can't be decided. It says nothing about the customer: refusals and failures that a saga or an
/// admin must hear of are answers, not errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// An order's command whose envelope names no order.
    #[error("the envelope of an order's command names no order")]
    NoOrder,
    /// The limit of a sku needs the customer's units, and they were not loaded.
    #[error("the customer's units of {0} were not loaded")]
    CustomerUnitsNotLoaded(Sku),
    /// A hold names an item that is not there.
    #[error("a hold exists for {0}, but no item")]
    ItemMissing(Sku),
    /// An entry that the item it is meant for can't have.
    #[error("the entry does not fit the item {sku} at version {version}")]
    Unbalanced {
        /// The item.
        sku: Sku,
        /// Its version before the entry.
        version: i64,
    },
}

impl StockError {
    /// Whether the received command is to blame; otherwise this program is.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NoOrder => true,
            Self::CustomerUnitsNotLoaded(_) | Self::ItemMissing(_) | Self::Unbalanced { .. } => false,
        }
    }
}
