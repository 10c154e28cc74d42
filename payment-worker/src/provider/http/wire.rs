//! What is said to the provider over HTTP, and what its answers mean. Described in the README.

use domain_types::{CustomerId, Money, OrderId};
use payment_domain::{ChargeAnswer, QueryAnswer, RefundAnswer, VoidAnswer};
use schemas::{DeclineReason, PaymentMethod};
use serde::{Deserialize, Serialize};

/// Longest name or code of the provider that is kept.
const WORD_CHARS: usize = 200;

#[derive(Serialize)]
pub(super) struct ChargeRequest<'a> {
    pub(super) order_id: OrderId,
    pub(super) customer_id: CustomerId,
    pub(super) amount: Money,
    pub(super) method: &'a PaymentMethod,
}

#[derive(Serialize)]
pub(super) struct RefundRequest {
    pub(super) amount: Money,
}

/// The body of an answer about a charge.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum ChargeBody {
    Approved { reference: String },
    Declined { reason: Option<String> },
    Voided,
    Pending,
    NotFound,
}

/// The body of an answer about a refund.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum RefundBody {
    Refunded { reference: String },
    Refused { code: Option<String> },
    Pending,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The provider answered with a status that may carry news, and a body.
    Answered(Vec<u8>),
    /// The request certainly was not processed.
    NotSent,
    /// Nobody knows.
    Lost,
}

fn reason(word: Option<&str>) -> DeclineReason {
    match word {
        Some("over_limit") => DeclineReason::OverLimit,
        Some("abandoned") => DeclineReason::Abandoned,
        _ => DeclineReason::Declined,
    }
}

fn short(text: String) -> String {
    if text.chars().count() > WORD_CHARS { text.chars().take(WORD_CHARS).collect() } else { text }
}

/// The provider's code as a `snake_case` word.
fn code(text: Option<String>) -> String {
    let word: String = text
        .unwrap_or_default()
        .chars()
        .take(WORD_CHARS)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    if word.is_empty() { "refund_refused".to_owned() } else { word }
}

fn charge_body(exchange: &Exchange) -> Option<ChargeBody> {
    match exchange {
        Exchange::Answered(body) => serde_json::from_slice(body).ok(),
        Exchange::NotSent | Exchange::Lost => None,
    }
}

pub(super) fn to_charge(exchange: &Exchange) -> ChargeAnswer {
    if matches!(exchange, Exchange::NotSent) {
        return ChargeAnswer::NotSent;
    }
    match charge_body(exchange) {
        Some(ChargeBody::Approved { reference }) => ChargeAnswer::Approved { reference: short(reference) },
        Some(ChargeBody::Declined { reason: word }) => ChargeAnswer::Declined(reason(word.as_deref())),
        Some(ChargeBody::Voided) => ChargeAnswer::Voided,
        // To be told "not found" by a charge says nothing about the charge.
        Some(ChargeBody::Pending | ChargeBody::NotFound) | None => ChargeAnswer::Unknown,
    }
}

pub(super) fn to_query(exchange: &Exchange) -> QueryAnswer {
    match charge_body(exchange) {
        Some(ChargeBody::Approved { reference }) => QueryAnswer::Approved { reference: short(reference) },
        Some(ChargeBody::Declined { reason: word }) => QueryAnswer::Declined(reason(word.as_deref())),
        Some(ChargeBody::Voided) => QueryAnswer::Voided,
        Some(ChargeBody::NotFound) => QueryAnswer::NotFound,
        Some(ChargeBody::Pending) | None => QueryAnswer::Unknown,
    }
}

pub(super) fn to_void(exchange: &Exchange) -> VoidAnswer {
    match charge_body(exchange) {
        Some(ChargeBody::Approved { reference }) => VoidAnswer::Approved { reference: short(reference) },
        Some(ChargeBody::Declined { reason: word }) => VoidAnswer::Declined(reason(word.as_deref())),
        Some(ChargeBody::Voided) => VoidAnswer::Voided,
        Some(ChargeBody::NotFound) => VoidAnswer::NotFound,
        Some(ChargeBody::Pending) | None => VoidAnswer::Unknown,
    }
}

pub(super) fn to_refund(exchange: &Exchange) -> RefundAnswer {
    let body = match exchange {
        Exchange::Answered(body) => serde_json::from_slice(body).ok(),
        Exchange::NotSent | Exchange::Lost => None,
    };
    match body {
        Some(RefundBody::Refunded { reference }) => RefundAnswer::Refunded { reference: short(reference) },
        Some(RefundBody::Refused { code: word }) => RefundAnswer::Refused { code: code(word) },
        Some(RefundBody::Pending) | None => RefundAnswer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(body: &str) -> Exchange {
        Exchange::Answered(body.as_bytes().to_vec())
    }

    #[test]
    fn what_is_no_clear_answer_is_unknown() {
        for body in ["", "{}", "<html>404</html>", r#"{"status":"approved"}"#, r#"{"status":"sure"}"#] {
            assert_eq!(to_charge(&answered(body)), ChargeAnswer::Unknown, "{body}");
            assert_eq!(to_query(&answered(body)), QueryAnswer::Unknown, "{body}");
            assert_eq!(to_void(&answered(body)), VoidAnswer::Unknown, "{body}");
            assert_eq!(to_refund(&answered(body)), RefundAnswer::Unknown, "{body}");
        }
        assert_eq!(to_charge(&answered(r#"{"status":"not_found"}"#)), ChargeAnswer::Unknown);
    }

    #[test]
    fn a_reason_nobody_knows_is_a_plain_decline() {
        let body = r#"{"status":"declined","reason":"insufficient_funds"}"#;
        assert_eq!(to_charge(&answered(body)), ChargeAnswer::Declined(DeclineReason::Declined));
        let body = r#"{"status":"declined","reason":"over_limit"}"#;
        assert_eq!(to_charge(&answered(body)), ChargeAnswer::Declined(DeclineReason::OverLimit));
    }

    #[test]
    fn a_refusals_code_becomes_a_snake_case_word() {
        let body = r#"{"status":"refused","code":"Account Closed"}"#;
        assert_eq!(to_refund(&answered(body)), RefundAnswer::Refused { code: "account_closed".into() });
    }
}
