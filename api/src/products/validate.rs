//! Bodies of admins' changes, checked.

use domain_types::{Currency, Money, Sku};
use schemas::{ProductData, ProductKind, Sale};
use serde_json::Value;

use crate::http::fields::{Findings, Object, integer, text};
use crate::problem::{FieldError, Problem};

/// Longest name, characters.
pub(crate) const MAX_NAME: usize = 200;
/// Longest option, category and reason, characters.
pub(crate) const MAX_WORD: usize = 100;
/// Most units of one change, either way.
pub(crate) const MAX_UNITS: i64 = 1_000_000_000;
/// Largest limit per customer, units.
const MAX_LIMIT: i64 = 1_000_000;

/// The sku in a path of an admin's call.
pub(crate) fn sku(text: &str) -> Result<Sku, Problem> {
    Sku::new(text).map_err(|error| {
        Problem::invalid(vec![FieldError::new("sku", "invalid_sku", format!("in the path: {error}"))])
    })
}

/// The body of `PUT /v1/admin/products/{sku}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) product: ProductData,
    pub(crate) initial_stock: Option<u32>,
}

impl Definition {
    /// Checks a body; what can be sold at all is the stock worker's rule, asked for here to point at the field.
    pub(crate) fn from_json(body: Value) -> Result<Self, Problem> {
        let mut findings = Findings::default();
        let f = &mut findings;
        let Some(mut body) = Object::new(body, "", f) else {
            findings.finish()?;
            return Err(Problem::internal());
        };
        let name = body.required("name", f).and_then(|value| text(&value, "/name", (1, MAX_NAME), f));
        let option = body.optional("option").and_then(|value| text(&value, "/option", (1, MAX_WORD), f));
        let category =
            body.required("category", f).and_then(|value| text(&value, "/category", (1, MAX_WORD), f));
        let kind = body.required("kind", f).and_then(|value| kind(value, f));
        let price = body.required("price", f).and_then(|value| price(value, f));
        let sale = body.optional("sale").and_then(|value| sale(value, f));
        let limit = body
            .optional("limit_per_customer")
            .and_then(|value| integer(&value, "/limit_per_customer", (1, MAX_LIMIT), f))
            .and_then(|limit| u32::try_from(limit).ok());
        let initial_stock = body
            .optional("initial_stock")
            .and_then(|value| integer(&value, "/initial_stock", (0, MAX_UNITS), f))
            .and_then(|units| u32::try_from(units).ok());
        body.finish(f);
        findings.finish()?;
        let (Some(name), Some(category), Some(kind), Some(price)) = (name, category, kind, price) else {
            return Err(Problem::internal());
        };
        let product = ProductData { name, option, category, kind, price, sale, limit_per_customer: limit };
        stock_domain::validate_product(&product).map_err(|error| {
            Problem::invalid(vec![FieldError::new(error.pointer(), "invalid_product", chain(&error))])
        })?;
        Ok(Self { product, initial_stock })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn kind(value: Value, findings: &mut Findings) -> Option<ProductKind> {
    match serde_json::from_value(value) {
        Ok(kind) => Some(kind),
        Err(_other) => {
            findings.add("/kind", "unknown_kind", "normal or limited");
            None
        }
    }
}

fn price(value: Value, findings: &mut Findings) -> Option<Money> {
    let mut price = Object::new(value, "/price", findings)?;
    let amount = price
        .required("amount", findings)
        .and_then(|value| integer(&value, "/price/amount", (0, i64::MAX), findings));
    let currency = price.required("currency", findings).and_then(|value| {
        let currency = value.as_str().and_then(Currency::from_code);
        if currency.is_none() {
            findings.add("/price/currency", "unknown_currency", "an ISO 4217 code");
        }
        currency
    });
    price.finish(findings);
    Some(Money::new(amount?, currency?))
}

fn sale(value: Value, findings: &mut Findings) -> Option<Sale> {
    match serde_json::from_value(value) {
        Ok(sale) => Some(sale),
        Err(error) => {
            findings.add("/sale", "invalid_sale", error.to_string());
            None
        }
    }
}

/// The body of `POST /v1/admin/products/{sku}/restock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restock {
    pub(crate) quantity: i64,
    pub(crate) reason: String,
}

impl Restock {
    pub(crate) fn from_json(body: Value) -> Result<Self, Problem> {
        let mut findings = Findings::default();
        let f = &mut findings;
        let Some(mut body) = Object::new(body, "", f) else {
            findings.finish()?;
            return Err(Problem::internal());
        };
        let quantity = body
            .required("quantity", f)
            .and_then(|value| integer(&value, "/quantity", (-MAX_UNITS, MAX_UNITS), f));
        if quantity == Some(0) {
            f.add("/quantity", "out_of_range", "0 units change nothing");
        }
        let reason = body.required("reason", f).and_then(|value| text(&value, "/reason", (1, MAX_WORD), f));
        body.finish(f);
        findings.finish()?;
        match (quantity, reason) {
            (Some(quantity), Some(reason)) => Ok(Self { quantity, reason }),
            _ => Err(Problem::internal()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({"name": "Shoe", "category": "shoes", "kind": "limited",
               "price": {"amount": 129_000, "currency": "KRW"}, "initial_stock": 5})
    }

    #[test]
    fn a_product_needs_a_price_a_currency_and_a_sale_that_opens_before_it_closes() {
        assert!(Definition::from_json(body()).is_ok());
        for (field, bad) in [
            ("price", json!({"amount": -1, "currency": "KRW"})),
            ("price", json!({"amount": 1, "currency": "XYZ1"})),
            ("price", json!(1)),
            ("kind", json!("rare")),
            ("name", json!("")),
            ("initial_stock", json!(-1)),
            ("limit_per_customer", json!(0)),
            ("sale", json!({"opens_at": "2026-11-21T05:00:00Z", "closes_at": "2026-11-21T04:00:00Z"})),
            ("sale", json!({"daily": {"opens": "14:00", "closes": "15:00", "time_zone": "Nowhere/Town"}})),
            ("sale", json!({"weekly": 1})),
            ("colour", json!("red")),
        ] {
            let mut body = body();
            body[field] = bad.clone();
            assert!(Definition::from_json(body).is_err(), "{field}: {bad}");
        }
    }
}
