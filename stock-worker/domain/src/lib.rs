#![doc = include_str!("../README.md")]
#![warn(clippy::wildcard_enum_match_arm, reason = "a new variant is decided on, not swallowed")]

mod admin;
mod entry;
mod error;
mod hold;
mod item;
mod order;
mod product;
mod sale;
mod stock;

pub use entry::{Cause, Entry, Fact, GivenBackFrom};
pub use error::StockError;
pub use hold::{Asked, Hold, HoldKey, HoldStatus};
pub use item::{Item, MAX_UNITS};
pub use product::{InvalidProduct, validate_product};
pub use sale::{InvalidSale, SaleState, SaleWindow, is_on_sale, sale_state};
pub use stock::{Answer, Change, ChangeOutcome, Decision, Stock, is_wanted};
