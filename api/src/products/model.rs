//! Products and stock changes as the api shows them.

use domain_types::{Money, RequestId, Sku, Timestamp};
use schemas::{ProductKind, Sale, StockLevel};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::openapi::wire;

/// A kind as it is written.
pub(crate) const fn kind_name(kind: ProductKind) -> &'static str {
    match kind {
        ProductKind::Normal => "normal",
        ProductKind::Limited => "limited",
    }
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Product {
    #[schema(value_type = wire::Sku)]
    pub(crate) sku: Sku,
    pub(crate) name: String,
    #[schema(required)]
    pub(crate) option: Option<String>,
    pub(crate) category: String,
    #[schema(value_type = wire::ProductKind)]
    pub(crate) kind: ProductKind,
    #[schema(value_type = wire::Money)]
    pub(crate) price: Money,
    pub(crate) available: i64,
    pub(crate) sold_out: bool,
    #[schema(value_type = Option<wire::Sale>, required)]
    pub(crate) sale: Option<Sale>,
    #[schema(required)]
    pub(crate) limit_per_customer: Option<i64>,
}

/// A product, and the version of the level that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) version: i64,
    pub(crate) product: Product,
}

impl From<&StockLevel> for Versioned {
    fn from(level: &StockLevel) -> Self {
        let data = level.product.clone();
        let product = Product {
            sku: level.sku.clone(),
            name: data.name,
            option: data.option,
            category: data.category,
            kind: data.kind,
            price: data.price,
            available: level.available,
            sold_out: level.available <= 0,
            sale: data.sale,
            limit_per_customer: data.limit_per_customer.map(i64::from),
        };
        Self { version: level.version, product }
    }
}

/// What became of an admin's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StockChange {
    #[schema(value_type = Uuid)]
    pub(crate) id: RequestId,
    #[schema(value_type = wire::Sku)]
    pub(crate) sku: Sku,
    /// Units added or taken away; null for an edit of product data.
    #[schema(required)]
    pub(crate) quantity: Option<i64>,
    pub(crate) state: ChangeState,
    #[schema(required)]
    pub(crate) code: Option<String>,
    #[schema(value_type = wire::Timestamp)]
    pub(crate) at: Timestamp,
    /// The sku's ledger entries with this one, once applied.
    #[serde(skip)]
    pub(crate) stock_version: Option<i64>,
    /// What was asked for, if this api was asked.
    #[serde(skip)]
    pub(crate) fingerprint: Option<String>,
}
