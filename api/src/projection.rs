//! The api's read model: consumers of `order-events`, `stock-levels` and `stock-events` on the effect-once runtime.
//!
//! Each ignores what is not newer than what is there, so a record may come again at any time, also after later ones.

mod changes;
mod levels;
mod orders;
mod store;

pub(crate) use changes::{StockChanges, StockChangesHandler};
pub(crate) use levels::{StockLevels, apply_levels};
pub(crate) use orders::{Orders, OrdersHandler};
