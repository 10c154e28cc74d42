//! `POST /v1/orders`.

use std::collections::HashMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain_types::{CustomerId, OrderId, Sku};
use tokio::time::Instant;
use uuid::Uuid;

use crate::admission::Refusal;
use crate::app::App;
use crate::auth::Buyer;
use crate::http::body::{Json, idempotency_key};
use crate::http::context::Trace;
use crate::intake::{Outcome, Submission};
use crate::openapi::bodies::{IdempotencyKey, NewOrder, Prefer};
use crate::openapi::refusals::Placing;
use crate::orders::model::Order;
use crate::orders::prefer::{self, Wait};
use crate::orders::read::own_order;
use crate::orders::validate::ValidOrder;
use crate::problem::{FieldError, Problem};

/// How long a request waits for its order to be acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(2_900);

/// Place an order
///
/// `202` says that the order is taken, not that there is stock: follow it, ask for it, or wait with `Prefer: wait`.
#[utoipa::path(
    post,
    path = "/v1/orders",
    tag = "orders",
    operation_id = "place_order",
    params(IdempotencyKey, Prefer),
    request_body = NewOrder,
    responses(
        (status = 201, description = "With `Prefer: wait`: the order has an outcome. It is paid, waits for its payment, is \
            giving things back, or was refused; `state` and `reason` tell.", body = Order, headers(
            ("Location" = String, description = "Where the order is."),
            ("Preference-Applied" = String, description = "`wait=N`"))),
        (status = 202, description = "The order is taken.", body = Order, headers(
            ("Location" = String, description = "Where the order is."),
            ("Preference-Applied" = String, description = "`wait=N`, if the time passed without an outcome."))),
        Placing
    ),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn submit(
    Buyer { id: customer_id, mail }: Buyer,
    State(app): State<App>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let wait = Wait::asked(&headers, &app, customer_id);
    let key = idempotency_key(&headers)?;
    let order = ValidOrder::from_json(body)?;
    let order_id = order_id(customer_id, key.as_deref());
    let submission = Submission {
        order_id,
        customer_id,
        keyed: key.is_some(),
        fingerprint: order.fingerprint(),
        order,
        tickets: HashMap::new(),
        refused: None,
        mail,
        traceparent: trace.traceparent(),
    };
    let skus: Vec<Sku> = submission.order.lines.iter().map(|(sku, _)| sku.clone()).collect();
    let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
    let outcome = app.admission.submit(&app.intake, submission, deadline).await;
    match outcome {
        Outcome::Accepted(order) => Ok(answer(&app, *order, wait).await),
        Outcome::Repeated => Ok(answer(&app, own_order(&app, customer_id, order_id).await?, wait).await),
        Outcome::Refused(refusal) => Err(refused(&refusal)),
        Outcome::KeyReused => Err(Problem::unprocessable(
            "idempotency_key_reused",
            "this Idempotency-Key names another order",
            vec![FieldError::new("Idempotency-Key", "reused", "take a new key for a new order")],
        )),
        Outcome::UnknownSkus(unknown) => Err(unknown_skus(&unknown, &skus)),
        Outcome::MixedCurrencies => {
            Err(Problem::unprocessable("mixed_currencies", "one order has one currency", Vec::new()))
        }
        Outcome::TotalOverflow => {
            Err(Problem::unprocessable("total_overflow", "the total is too large", Vec::new()))
        }
        Outcome::Unavailable(dependency) => Err(Problem::unavailable(dependency)),
        Outcome::Unknown => Err(Problem::outcome_unknown(order_id)),
    }
}

/// The same customer and key always name the same order.
fn order_id(customer: CustomerId, key: Option<&str>) -> OrderId {
    OrderId(match key {
        Some(key) => Uuid::new_v5(&customer.uuid(), key.as_bytes()),
        None => Uuid::now_v7(),
    })
}

/// `202`, or what a wait brought.
async fn answer(app: &App, order: Order, wait: Option<Wait>) -> Response {
    let Some(wait) = wait else { return accepted(&order) };
    let begun = Instant::now();
    if prefer::has_outcome(&order) {
        return wait.applied(with_order(prefer::status(&order), &order), begun.elapsed());
    }
    let mut following = app.wakeups.follow(order.id);
    let newest = wait.outcome(app, &mut following).await;
    let order = newest.as_deref().unwrap_or(&order);
    wait.applied(with_order(prefer::status(order), order), begun.elapsed())
}

/// `202`, where to find it, and the order.
pub(crate) fn accepted(order: &Order) -> Response {
    with_order(StatusCode::ACCEPTED, order)
}

fn with_order(status: StatusCode, order: &Order) -> Response {
    let location = format!("/v1/orders/{}", order.id);
    (status, [(header::LOCATION, location)], axum::Json(order)).into_response()
}

/// What the door says. The stock worker would say the same as the order's reason.
fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::SoldOut(sku) => Problem::conflict("sold_out", format!("{sku}: not enough units are left")),
        Refusal::LimitExceeded(sku) => {
            Problem::conflict("limit_exceeded", format!("{sku}: more than one customer may have"))
        }
        Refusal::SaleClosed { sku, opens_at } => {
            let detail = match opens_at {
                Some(opens_at) => format!("{sku} is not on sale before {opens_at}"),
                None => format!("{sku} is not on sale any more"),
            };
            Problem::new(StatusCode::FORBIDDEN, "sale_closed", detail)
        }
    }
}

fn unknown_skus(unknown: &[Sku], ordered: &[Sku]) -> Problem {
    let names: Vec<&str> = unknown.iter().map(Sku::as_str).collect();
    let errors = ordered
        .iter()
        .filter(|sku| unknown.contains(sku))
        .map(|sku| FieldError::new("/lines", "unknown_sku", format!("there is no product {sku}")))
        .collect();
    Problem::unprocessable("unknown_sku", format!("there is no product {}", names.join(", ")), errors)
}
