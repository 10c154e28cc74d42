//! What product data must be like.

use schemas::ProductData;

use crate::{InvalidSale, SaleWindow};

/// Why product data is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProduct {
    /// Nobody could find it.
    #[error("the name is empty")]
    EmptyName,
    /// A price is at least 0.
    #[error("the price is negative")]
    NegativePrice,
    /// A limit of 0 units would be a product that nobody can buy.
    #[error("the limit per customer is 0")]
    ZeroLimit,
    /// See [`InvalidSale`].
    #[error("the sale window is not valid")]
    Sale(#[from] InvalidSale),
}

impl InvalidProduct {
    /// JSON pointer of the field to blame, within the product.
    pub fn pointer(&self) -> &'static str {
        match self {
            Self::EmptyName => "/name",
            Self::NegativePrice => "/price/amount",
            Self::ZeroLimit => "/limit_per_customer",
            Self::Sale(sale) => sale.pointer(),
        }
    }
}

/// Checks what an admin says about a product. The api calls it for a helpful answer, the worker because it
/// believes nobody.
pub fn validate_product(product: &ProductData) -> Result<(), InvalidProduct> {
    if product.name.trim().is_empty() {
        return Err(InvalidProduct::EmptyName);
    }
    if product.price.amount < 0 {
        return Err(InvalidProduct::NegativePrice);
    }
    if product.limit_per_customer == Some(0) {
        return Err(InvalidProduct::ZeroLimit);
    }
    if let Some(sale) = &product.sale {
        SaleWindow::try_from(sale)?;
    }
    Ok(())
}
