//! Payment, cancellation and return: requests that the order's saga answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use domain_types::{CustomerId, MessageId, OrderId, RequestId, Timestamp};
use messaging::Output;
use schemas::{
    CancelOrder, Envelope, OrderSagaMessage, PayOrder, RequestKind, RequestOutcome, ReturnOrder, Topic,
};
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, bounded};
use crate::auth::Customer;
use crate::http::body::{Json, NoBody, idempotency_key};
use crate::http::context::Trace;
use crate::http::fields::Findings;
use crate::intake::now;
use crate::openapi::bodies::{IdempotencyKey, NewPayment, Nothing, Prefer};
use crate::openapi::refusals::{Cancelling, Paying, Returning};
use crate::orders::model::{Order, kind_name};
use crate::orders::prefer::Wait;
use crate::orders::read::{order_id, own_followed, own_order};
use crate::orders::submit::accepted;
use crate::orders::{store, validate};
use crate::problem::Problem;

/// How long the order may take to be read before the database counts as away.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a request waits for the saga's answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// How long a request waits for its command to be acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(2_900);
/// How long a request without an answer is shown as pending.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How often older ones are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(10 * 60);

/// Pay for an order
///
/// Until `pay_before`. Waits up to 1 s for the answer, or as long as `Prefer: wait` says.
#[utoipa::path(
    post,
    path = "/v1/orders/{id}/payment",
    tag = "orders",
    operation_id = "pay_order",
    params(("id" = Uuid, Path, description = "The order"), IdempotencyKey, Prefer),
    request_body = NewPayment,
    responses(
        (status = 202, description = "The saga took the request, or has not answered yet: `requests` tells.", body = Order,
            headers(("Location" = String, description = "Where the order is."),
                ("Preference-Applied" = String, description = "`wait=N`, if it was asked for."))),
        Paying
    ),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn pay(
    Customer(customer): Customer,
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut findings = Findings::default();
    let method = validate::payment(body, "", &mut findings);
    findings.finish()?;
    let Some(method) = method else { return Err(Problem::internal()) };
    let mut ask = Ask::new(customer, &id, RequestKind::Payment, &headers, trace)?;
    ask.wait = Wait::asked(&headers, &app, customer);
    let command = PayOrder { request_id: ask.request, customer_id: customer, method };
    ask.send(&app, command.into()).await
}

/// Cancel an order
///
/// Until it is shipped. Units and money are given back. Waits up to 1 s for the answer.
#[utoipa::path(
    post,
    path = "/v1/orders/{id}/cancellation",
    tag = "orders",
    operation_id = "cancel_order",
    params(("id" = Uuid, Path, description = "The order"), IdempotencyKey),
    request_body = Nothing,
    responses(
        (status = 202, description = "The saga took the request, or has not answered yet: `requests` tells.", body = Order,
            headers(("Location" = String, description = "Where the order is."))),
        Cancelling
    ),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn cancel(
    Customer(customer): Customer,
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, Problem> {
    let ask = Ask::new(customer, &id, RequestKind::Cancellation, &headers, trace)?;
    let command = CancelOrder { request_id: ask.request, customer_id: customer };
    ask.send(&app, command.into()).await
}

/// Give an order back
///
/// Until `return_before`. Waits up to 1 s for the answer.
#[utoipa::path(
    post,
    path = "/v1/orders/{id}/return",
    tag = "orders",
    operation_id = "return_order",
    params(("id" = Uuid, Path, description = "The order"), IdempotencyKey),
    request_body = Nothing,
    responses(
        (status = 202, description = "The saga took the request, or has not answered yet: `requests` tells.", body = Order,
            headers(("Location" = String, description = "Where the order is."))),
        Returning
    ),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn give_back(
    Customer(customer): Customer,
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, Problem> {
    let ask = Ask::new(customer, &id, RequestKind::Return, &headers, trace)?;
    let command = ReturnOrder { request_id: ask.request, customer_id: customer };
    ask.send(&app, command.into()).await
}

/// Forgets requests that nobody answered for a day, until `shutdown`: their commands never reached the log.
pub(crate) async fn forget_unanswered(pool: PgPool, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_some() {
        let millis = i64::try_from(FORGET_AFTER.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now().as_millis().saturating_sub(millis));
        if let Err(error) = store::forget_requests_before(&pool, before).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "old requests are forgotten later");
        }
    }
}

/// One customer's request about one order.
struct Ask {
    customer: CustomerId,
    order: OrderId,
    request: RequestId,
    kind: RequestKind,
    trace: Trace,
    /// How long the client wants to wait for what comes of it.
    wait: Option<Wait>,
}

impl Ask {
    fn new(
        customer: CustomerId,
        order: &str,
        kind: RequestKind,
        headers: &HeaderMap,
        trace: Trace,
    ) -> Result<Self, Problem> {
        let order = order_id(order)?;
        let request = request_id(order, kind, idempotency_key(headers)?.as_deref());
        Ok(Self { customer, order, request, kind, trace, wait: None })
    }

    /// Publishes the command unless it is answered already, waits for the saga's answer and tells it.
    async fn send(self, app: &App, command: OrderSagaMessage) -> Result<Response, Problem> {
        let begun = Instant::now();
        let mut following = app.wakeups.follow(self.order);
        let mut latest = own_followed(&mut following, self.customer, READ_WITHIN).await?;
        if !is_answered(&latest, self.request) {
            app.publisher.reachable().await.map_err(|_away| Problem::unavailable("kafka"))?;
            let at = now();
            let remembering = store::remember_request(&app.pool, self.order, self.request, self.kind, at);
            bounded(remembering).await?;
            let sent = Instant::now();
            self.publish(app, command, at).await?;
            let deadline = self.wait.as_ref().map_or(sent + ANSWERED_WITHIN, Wait::deadline);
            let answered = following.until(|order| is_answered(order, self.request));
            let answered = tokio::time::timeout_at(deadline, answered);
            latest = match app.live.end.run_until_cancelled(answered).await {
                Some(Ok(order)) => order,
                Some(Err(_)) | None => Arc::new(own_order(app, self.customer, self.order).await?),
            };
        }
        let Some(wait) = &self.wait else { return answer(&latest, self.request) };
        if granted(&latest, self.request)
            && let Some(newest) = wait.outcome(app, &mut following).await
        {
            latest = newest;
        }
        Ok(wait.applied(answer(&latest, self.request)?, begun.elapsed()))
    }

    /// As a task of its own, so that a client that hangs up does not leave a request half sent.
    async fn publish(&self, app: &App, command: OrderSagaMessage, at: Timestamp) -> Result<(), Problem> {
        let envelope = Envelope {
            message_id: MessageId(Uuid::now_v7()),
            order_id: Some(self.order),
            causation_id: None,
            occurred_at: at,
            message: command,
        };
        let output = Output::new(Topic::OrderSaga, self.order.to_string(), &envelope)
            .traceparent(Some(&self.trace.traceparent()));
        let publisher = app.publisher.clone();
        let publishing = tokio::spawn(async move { publisher.publish(&[output]).await });
        match tokio::time::timeout(ACKNOWLEDGED_WITHIN, publishing).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_) | Err(_) => Err(Problem::outcome_unknown(self.order)),
        }
    }
}

/// The same order, kind and key always name the same request.
fn request_id(order: OrderId, kind: RequestKind, key: Option<&str>) -> RequestId {
    RequestId(match key {
        Some(key) => Uuid::new_v5(&order.uuid(), format!("{}:{key}", kind_name(kind)).as_bytes()),
        None => Uuid::now_v7(),
    })
}

/// Whether the order shows the saga's answer to a request.
fn is_answered(order: &Order, request: RequestId) -> bool {
    order.request(request).is_some_and(|request| match request.outcome {
        RequestOutcome::Pending => false,
        RequestOutcome::Done | RequestOutcome::Refused => true,
    })
}

fn granted(order: &Order, request: RequestId) -> bool {
    order.request(request).is_some_and(|request| request.outcome == RequestOutcome::Done)
}

/// `202` with the order, or `409` if it shows that the saga refused the request.
fn answer(order: &Order, request: RequestId) -> Result<Response, Problem> {
    match order.request(request) {
        Some(refused) if refused.outcome == RequestOutcome::Refused => {
            let code = refused.code.clone().unwrap_or_else(|| "refused".to_owned());
            let detail = format!("the order is {}: {}", order.state.as_str(), code.replace('_', " "));
            Err(Problem::conflict(code, detail))
        }
        _ => Ok(accepted(order)),
    }
}
