//! Bodies, headers and parameters of requests as the document shows them. Bodies are read field by field
//! ([`crate::http::fields`]), so that each wrong field gets a pointer of its own; nothing of these types is ever made.
//! Unknown fields are refused: see [`CLOSED`].
#![expect(dead_code, reason = "described, never made")]

use utoipa::openapi::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use crate::openapi::wire;

/// Bodies in which an unknown field is an error.
pub(crate) const CLOSED: [&str; 7] =
    ["NewLine", "NewOrder", "NewPayment", "NewPrice", "Nothing", "ProductDefinition", "StockIncrement"];

/// An order to place. Lines of the same sku are merged.
#[derive(ToSchema)]
#[schema(
    examples(json!({"lines": [{"sku": "SHOE-42", "quantity": 1}], "payment": {"method": "tok_approve"}}))
)]
pub(crate) struct NewOrder {
    /// What is ordered; one order has one currency.
    #[schema(min_items = 1, max_items = 20)]
    lines: Vec<NewLine>,
    /// With it, the charge follows the reservation at once; without, the order waits for `POST .../payment`.
    payment: Option<NewPayment>,
    #[schema(schema_with = not_yet, required = false)]
    coupon_id: (),
    #[schema(schema_with = not_yet, required = false)]
    points: (),
}

fn not_yet() -> Object {
    let description = "Not available yet: `422` `not_available` if it is not null.";
    ObjectBuilder::new().schema_type(Type::Null).description(Some(description)).build()
}

/// So many of one product.
#[derive(ToSchema)]
#[schema(examples(json!({"sku": "SHOE-42", "quantity": 1})))]
pub(crate) struct NewLine {
    /// Which product.
    sku: wire::Sku,
    /// How many units; all lines of one sku together at most 1,000,000.
    #[schema(value_type = i32, minimum = 1, maximum = 1_000_000)]
    quantity: u32,
}

/// How it is paid.
#[derive(ToSchema)]
#[schema(examples(json!({"method": "tok_approve"})))]
pub(crate) struct NewPayment {
    /// The provider's token. The simulated provider knows `tok_approve`, `tok_decline`, `tok_over_limit`, `tok_abandon`,
    /// `tok_slow`, `tok_unknown_approve`, `tok_unknown_decline` and `tok_random`.
    #[schema(min_length = 1, max_length = 100, pattern = "^[!-~]+$")]
    method: String,
}

/// A product's data. All of it is replaced.
#[derive(ToSchema)]
#[schema(
    examples(json!({
        "name": "Running shoe", "option": "42, blue", "category": "shoes", "kind": "limited",
        "price": {"amount": 129_000, "currency": "KRW"},
        "sale": {"daily": {"opens": "14:00", "closes": "15:00", "time_zone": "Asia/Seoul"}},
        "limit_per_customer": 1, "initial_stock": 100
    }))
)]
pub(crate) struct ProductDefinition {
    /// Unique together with `option`. No control characters, no blanks at its ends.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Colour, size and the like. No control characters, no blanks at its ends.
    #[schema(min_length = 1, max_length = 100)]
    option: Option<String>,
    /// No control characters, no blanks at its ends.
    #[schema(min_length = 1, max_length = 100)]
    category: String,
    kind: wire::ProductKind,
    price: NewPrice,
    /// When it can be bought; null: always.
    sale: Option<wire::Sale>,
    /// Units that one customer may have; null: any number.
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 1_000_000)]
    limit_per_customer: Option<u32>,
    /// Units at the beginning. Required for a new product, ignored after.
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 1_000_000_000)]
    initial_stock: Option<u32>,
}

/// The price of one unit.
#[derive(ToSchema)]
#[schema(examples(json!({"amount": 129_000, "currency": "KRW"})))]
pub(crate) struct NewPrice {
    /// Minor units.
    #[schema(minimum = 0)]
    amount: i64,
    /// An ISO 4217 code that is in use.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
}

/// Units that come or go.
#[derive(ToSchema)]
#[schema(examples(json!({"quantity": 50, "reason": "delivery 4711"})))]
pub(crate) struct StockIncrement {
    /// Negative: taken away. Not 0. What is available never falls below 0.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    quantity: i64,
    /// For the ledger. No control characters, no blanks at its ends.
    #[schema(min_length = 1, max_length = 100)]
    reason: String,
}

/// Nothing: no body, or an empty object.
#[derive(ToSchema)]
#[schema(examples(json!({})))]
pub(crate) struct Nothing {}

/// A name for this request, so that it can be sent again.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// Names this request: a repeat with the same key does not do it twice. Visible ASCII.
    #[param(value_type = String, required = false, rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]{1,255}$",
        example = "cart-7f3a"
    )]
    idempotency_key: Option<String>,
}

/// The same, where it must be given.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct RequiredIdempotencyKey {
    /// Names this request: a repeat with the same key does not do it twice. Visible ASCII.
    #[param(value_type = String, required = true, rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]{1,255}$",
        example = "delivery-4711"
    )]
    idempotency_key: String,
}

/// Hold the answer back.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Prefer {
    /// `wait=N`, 1 to 30 seconds (RFC 7240): the answer is held back until there is an outcome, or time is up;
    /// `Preference-Applied` says so. Other preferences are ignored.
    #[param(value_type = String, required = false, rename = "Prefer", example = "wait=10")]
    prefer: Option<String>,
}

/// A page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Items of a page.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<u16>,
    /// `next` of the page before, with the same filters.
    #[param(min_length = 1, example = "q83vASNFZ4mrze8B")]
    after: Option<String>,
}

/// Ask whether something has changed.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IfNoneMatch {
    /// The `ETag` of what you have.
    #[param(value_type = String, required = false, rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Go on where a stream ended.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct LastEventId {
    /// The id of the last event that arrived: the order's version.
    #[param(value_type = String, required = false, rename = "Last-Event-ID", pattern = "^[0-9]{1,18}$", example = "3")]
    last_event_id: Option<String>,
}

/// One of these words.
pub(crate) fn words(words: &[&str], description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.to_vec()))
        .description(Some(description))
        .build()
}
