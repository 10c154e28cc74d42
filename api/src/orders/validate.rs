//! The body of `POST /v1/orders`, checked: what comes out can be bought, if its skus exist.

use std::collections::BTreeMap;

use domain_types::{MAX_QUANTITY, Quantity, Sku};
use schemas::PaymentMethod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::fields::{Findings, Object, integer};
use crate::problem::{FieldError, Problem};

/// Most lines of an order, before equal skus are merged.
pub(crate) const MAX_LINES: usize = 20;
/// Longest payment method, characters.
pub(crate) const MAX_METHOD: usize = 100;
/// Fields of later features: known, but not to be had yet.
const NOT_YET: [&str; 2] = ["coupon_id", "points"];

/// An order whose form is right: one line per sku, sorted by sku.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValidOrder {
    pub(crate) lines: Vec<(Sku, Quantity)>,
    pub(crate) method: Option<PaymentMethod>,
}

impl ValidOrder {
    /// Checks a body.
    ///
    /// # Errors
    /// `422` with a pointer for each field that is wrong.
    pub(crate) fn from_json(body: Value) -> Result<Self, Problem> {
        let mut findings = Findings::default();
        let Some(mut order) = Object::new(body, "", &mut findings) else {
            return Err(finished(findings));
        };
        for name in NOT_YET {
            if order.has(name) {
                let detail = format!("{name} is not available yet");
                let error = FieldError::new(order.pointer(name), "not_available", detail.clone());
                return Err(Problem::unprocessable("not_available", detail, vec![error]));
            }
            let _null = order.optional(name);
        }
        let lines = order.required("lines", &mut findings).map(|value| lines(value, &mut findings));
        let method = order.optional("payment").and_then(|value| payment(value, "/payment", &mut findings));
        order.finish(&mut findings);
        findings.finish()?;
        Ok(Self { lines: lines.unwrap_or_default(), method })
    }

    /// SHA-256 (hex) of what is ordered and how it is paid; neither prices nor the body's bytes.
    pub(crate) fn fingerprint(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|(sku, quantity)| json!([sku, quantity])).collect();
        let canonical = json!([lines, self.method]);
        format!("{:x}", Sha256::digest(canonical.to_string()))
    }
}

fn finished(findings: Findings) -> Problem {
    findings.finish().err().unwrap_or_else(Problem::internal)
}

fn lines(value: Value, findings: &mut Findings) -> Vec<(Sku, Quantity)> {
    let Value::Array(values) = value else {
        findings.add("/lines", "invalid_type", "a list is expected");
        return Vec::new();
    };
    if !(1..=MAX_LINES).contains(&values.len()) {
        findings.add("/lines", "out_of_range", format!("1 to {MAX_LINES} lines"));
        return Vec::new();
    }
    let mut merged: BTreeMap<Sku, Quantity> = BTreeMap::new();
    for (index, value) in values.into_iter().enumerate() {
        let pointer = format!("/lines/{index}");
        let Some((sku, quantity)) = line(value, &pointer, findings) else { continue };
        let sum = match merged.get(&sku) {
            Some(before) => before.checked_add(quantity),
            None => Ok(quantity),
        };
        match sum {
            Ok(sum) => {
                merged.insert(sku, sum);
            }
            Err(_too_many) => {
                let detail = format!("all lines of {sku} together: at most {MAX_QUANTITY}");
                findings.add(format!("{pointer}/quantity"), "out_of_range", detail);
            }
        }
    }
    merged.into_iter().collect()
}

fn line(value: Value, pointer: &str, findings: &mut Findings) -> Option<(Sku, Quantity)> {
    let mut line = Object::new(value, pointer, findings)?;
    let sku = line.required("sku", findings).and_then(|value| sku(&value, &line.pointer("sku"), findings));
    let quantity = line
        .required("quantity", findings)
        .and_then(|value| integer(&value, &line.pointer("quantity"), (1, i64::from(MAX_QUANTITY)), findings))
        .and_then(|units| u32::try_from(units).ok())
        .and_then(|units| Quantity::new(units).ok());
    line.finish(findings);
    Some((sku?, quantity?))
}

pub(crate) fn sku(value: &Value, pointer: &str, findings: &mut Findings) -> Option<Sku> {
    let Some(text) = value.as_str() else {
        findings.add(pointer, "invalid_type", "a text is expected");
        return None;
    };
    match Sku::new(text) {
        Ok(sku) => Some(sku),
        Err(error) => {
            findings.add(pointer, "invalid_sku", error.to_string());
            None
        }
    }
}

/// `{"method": "..."}`
pub(crate) fn payment(value: Value, pointer: &str, findings: &mut Findings) -> Option<PaymentMethod> {
    let mut payment = Object::new(value, pointer, findings)?;
    let at = payment.pointer("method");
    let method = payment.required("method", findings).and_then(|value| match value.as_str() {
        None => {
            findings.add(&at, "invalid_type", "a text is expected");
            None
        }
        Some(text)
            if (1..=MAX_METHOD).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Some(PaymentMethod(text.to_owned()))
        }
        Some(_) => {
            findings.add(&at, "invalid_text", format!("1 to {MAX_METHOD} visible ASCII characters"));
            None
        }
    });
    payment.finish(findings);
    method
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lines: Value) -> Result<ValidOrder, Problem> {
        ValidOrder::from_json(json!({"lines": lines}))
    }

    #[test]
    fn equal_skus_are_merged_and_the_fingerprint_does_not_see_how_they_were_written() {
        let one = order(json!([{"sku": "B", "quantity": 1}, {"sku": "A", "quantity": 2}])).unwrap();
        let other = order(json!([
            {"quantity": 1, "sku": "A"}, {"sku": "B", "quantity": 1}, {"sku": "A", "quantity": 1}
        ]))
        .unwrap();
        assert_eq!(one, other);
        assert_eq!(one.fingerprint(), other.fingerprint());
        let paid = ValidOrder { method: Some(PaymentMethod("tok_approve".into())), ..one.clone() };
        assert_ne!(one.fingerprint(), paid.fingerprint());
        let more = order(json!([{"sku": "A", "quantity": 2}, {"sku": "B", "quantity": 2}])).unwrap();
        assert_ne!(one.fingerprint(), more.fingerprint());
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let line = json!({"sku": "A", "quantity": 1});
        assert!(order(json!(vec![line.clone(); 20])).is_ok());
        for bad in [
            json!([]),
            json!(vec![line; 21]),
            json!({}),
            json!([{"sku": "A", "quantity": 0}]),
            json!([{"sku": "A", "quantity": -1}]),
            json!([{"sku": "A", "quantity": 2_147_483_648_u64}]),
            json!([{"sku": "A", "quantity": u64::MAX}]),
            json!([{"sku": "A", "quantity": 1.0}]),
            json!([{"sku": "A", "quantity": "1"}]),
            json!([{"sku": "A\0", "quantity": 1}]),
            json!([{"sku": "a", "quantity": 1}]),
            json!([{"sku": "A"}]),
            json!([{"sku": "A", "quantity": 1, "price": 1}]),
            json!([{"sku": "A", "quantity": 600_000}, {"sku": "A", "quantity": 600_000}]),
        ] {
            assert!(order(bad.clone()).is_err(), "{bad}");
        }
    }
}
