#![doc = include_str!("../README.md")]

mod ids;
mod money;
mod quantity;
mod time;

pub use ids::{Attempt, CustomerId, InvalidId, InvalidSku, LineNumber, MessageId, OrderId, RequestId, Sku};
pub use iso_currency::Currency;
pub use money::{Money, MoneyError};
pub use quantity::{InvalidQuantity, MAX_QUANTITY, Quantity};
pub use time::{InvalidTimestamp, Timestamp};
