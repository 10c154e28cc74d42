//! What can go wrong with each operation, by its `code`. Errors that can happen everywhere are in `shared`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema as _};

use crate::problem::ProblemDocument;

/// An error: its status, its code, and when it happens.
pub(crate) type Refusal = (u16, &'static str, &'static str);

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: [$($refusal:expr),* $(,)?];)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                of(&[$($refusal),*])
            }
        }
    )*};
}

const KEY_REUSED: Refusal = (422, "idempotency_key_reused", "the key named another request before");
const UNKNOWN_OUTCOME: Refusal = (
    503,
    "outcome_unknown",
    "sent, but not acknowledged in time: `Location` and `order_id` tell where to ask; a repeat with the same key is safe",
);

refusals! {
    /// `POST /v1/orders`
    Placing: [
        (403, "sale_closed", "outside the sale of a product"),
        (409, "sold_out", "not enough units are left"),
        (409, "limit_exceeded", "more than one customer may have"),
        (422, "unknown_sku", "there is no such product"),
        (422, "not_available", "`coupon_id` and `points` are not available yet"),
        (422, "mixed_currencies", "one order has one currency"),
        (422, "total_overflow", "the total is too large"),
        KEY_REUSED,
        UNKNOWN_OUTCOME,
    ];
    /// `POST /v1/orders/{id}/payment`
    Paying: [
        (409, "already_paid", "it is paid"),
        (409, "payment_in_progress", "a charge is under way"),
        (409, "not_payable", "the order does not wait for a payment"),
        UNKNOWN_OUTCOME,
    ];
    /// `POST /v1/orders/{id}/cancellation`
    Cancelling: [
        (409, "already_shipped", "it is on its way"),
        (409, "not_cancellable", "it has ended, or is ending"),
        UNKNOWN_OUTCOME,
    ];
    /// `POST /v1/orders/{id}/return`
    Returning: [
        (409, "not_delivered", "it has not arrived"),
        (409, "return_window_closed", "it arrived too long ago"),
        UNKNOWN_OUTCOME,
    ];
    /// `GET /v1/orders/{id}/events`
    Following: [
        (400, "invalid_last_event_id", "`Last-Event-ID` is no version"),
        (503, "too_many_streams", "this node has as many open streams as it takes"),
    ];
    /// Lists.
    Listing: [(422, "invalid_cursor", "this list did not give out this cursor")];
    /// `PUT /v1/admin/products/{sku}`
    Defining: [
        (409, "duplicate_name", "another product has this name and option"),
        (409, "invalid_product", "the stock worker refused the product"),
        (409, "too_many_units", "more units than can be counted"),
        UNKNOWN_OUTCOME,
    ];
    /// `POST /v1/admin/products/{sku}/restock`
    Restocking: [KEY_REUSED, UNKNOWN_OUTCOME];
    /// `GET /readyz`
    Ready: [(503, "not_ready", "`missing` says what this node lacks")];
}

/// Responses by status, each with an example for each code.
pub(crate) fn of(refusals: &[Refusal]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals {
        by_status.entry(refusal.0.to_string()).or_default().push(refusal);
    }
    by_status.into_iter().map(|(status, refusals)| (status, RefOr::T(response(&refusals)))).collect()
}

fn response(refusals: &[&Refusal]) -> Response {
    let schema = Ref::from_schema_name(ProblemDocument::name());
    let examples = refusals.iter().map(|refusal| {
        let example = ExampleBuilder::new().summary(refusal.2).value(Some(example(refusal))).build();
        (refusal.1, example)
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    ResponseBuilder::new().content(PROBLEM_JSON, content).build()
}

fn example((status, code, when): &Refusal) -> Value {
    let title = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
    let mut problem = json!({
        "type": format!("urn:firstcome:problem:{code}"),
        "title": title.unwrap_or("Error"),
        "status": status,
        "code": code,
        "detail": when,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    let more = match *code {
        "invalid_request" => Some((
            "errors",
            json!([{
                "pointer": "/lines/0/quantity", "code": "out_of_range", "detail": "1 to 1000000"
            }]),
        )),
        "not_ready" => Some(("missing", json!(["the database does not answer"]))),
        "outcome_unknown" => Some(("order_id", json!("6f9619ff-8b86-5011-b42d-00c04fc964ff"))),
        _ => None,
    };
    if let (Some((name, value)), Some(fields)) = (more, problem.as_object_mut()) {
        fields.insert(name.to_owned(), value);
    }
    problem
}
