//! Products and stock changes as the api shows them.

use domain_types::{Money, RequestId, Sku, Timestamp};
use schemas::{ProductKind, Sale};
use serde::Serialize;

/// A kind as it is written.
pub(crate) const fn kind_name(kind: ProductKind) -> &'static str {
    match kind {
        ProductKind::Normal => "normal",
        ProductKind::Limited => "limited",
    }
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Product {
    pub(crate) sku: Sku,
    pub(crate) name: String,
    pub(crate) option: Option<String>,
    pub(crate) category: String,
    pub(crate) kind: ProductKind,
    pub(crate) price: Money,
    pub(crate) available: i64,
    pub(crate) sold_out: bool,
    pub(crate) sale: Option<Sale>,
    pub(crate) limit_per_customer: Option<i64>,
}

/// What became of an admin's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeState {
    Pending,
    Applied,
    Refused,
}

impl ChangeState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        [Self::Pending, Self::Applied, Self::Refused].into_iter().find(|state| state.as_str() == text)
    }
}

/// An admin's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StockChange {
    pub(crate) id: RequestId,
    pub(crate) sku: Sku,
    /// Units added or taken away; null for an edit of product data.
    pub(crate) quantity: Option<i64>,
    pub(crate) state: ChangeState,
    pub(crate) code: Option<String>,
    pub(crate) at: Timestamp,
    /// The sku's ledger entries with this one, once applied.
    #[serde(skip)]
    pub(crate) stock_version: Option<i64>,
    /// What was asked for, if this api was asked.
    #[serde(skip)]
    pub(crate) fingerprint: Option<String>,
}
