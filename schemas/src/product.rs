//! What is known about a product.

use domain_types::{Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Product data as admins give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductData {
    /// The name; unique together with the option.
    pub name: String,
    /// A variant of the name (colour, size).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// Where it is listed.
    pub category: String,
    /// Normal or limited.
    pub kind: ProductKind,
    /// Price of one unit.
    pub price: Money,
    /// When it is sold; always, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sale: Option<Sale>,
    /// The most units one customer may hold and have bought, over all orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_per_customer: Option<u32>,
}

/// The kind of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProductKind {
    /// Sold while there is stock.
    Normal,
    /// A limited edition: expect a rush.
    Limited,
}

/// A sale window: `opens_at` and `closes_at`, or `daily`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sale {
    /// First instant of the sale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// First instant after the sale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// Every day from one wall-clock time to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<DailySale>,
}

/// A daily sale window by the wall clock of a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DailySale {
    /// `HH:MM`, the first minute.
    pub opens: String,
    /// `HH:MM`, the first minute after.
    pub closes: String,
    /// IANA name, such as `Asia/Seoul`.
    pub time_zone: String,
}
