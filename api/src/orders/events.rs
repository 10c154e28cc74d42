//! `GET /v1/orders/{id}/events`: an order as server-sent events.
//!
//! A stream holds at most one event that its client has not taken; what comes meanwhile is only the order's newest
//! version, which all streams of that order share.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::auth::Customer;
use crate::openapi::bodies::LastEventId;
use crate::openapi::refusals::Following;
use crate::orders::live::{End, Full, Live};
use crate::orders::model::Order;
use crate::orders::read::{order_id, own_followed};
use crate::problem::Problem;
use crate::wakeups;

/// How long the order may take to be read. Longer than for other requests: when another node has ended, all its clients come
/// at once, and a browser that is turned away does not come back.
const READ_WITHIN: Duration = Duration::from_secs(8);
/// A comment goes out after so long without an event: proxies and clients see that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is dropped.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// When a client comes back after the node has ended: not all at the same time.
const COME_BACK_AFTER_MS: std::ops::Range<u64> = 500..2_500;
/// When a client that found no place may try again.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx and its like to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Follow an order
///
/// Server-sent events `order`: `id` is the order's version, `data` the order. First the present state, if it is newer than
/// `Last-Event-ID`, then each newer one; changes close together may arrive as one event (`history` has them all). The
/// stream ends once `final` is true. When a node ends, go on at another with `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/v1/orders/{id}/events",
    tag = "orders",
    operation_id = "follow_order",
    params(("id" = Uuid, Path, description = "The order"), LastEventId),
    responses(
        (status = 200, description = "The stream; `data` of each event is an `Order`.", body = String,
            content_type = "text/event-stream",
            example = "event: order\nid: 3\ndata: {\"id\":\"6f9619ff-8b86-5011-b42d-00c04fc964ff\",\"version\":3}\n\n"),
        (status = 204, description = "The order is final and you have its last version: nothing will come any more."),
        Following
    ),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn events(
    Customer(customer): Customer,
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = order_id(&id)?;
    let after = last_event_id(&headers)?;
    let place = app.live.stream(customer).map_err(no_place)?;
    let mut following = app.wakeups.follow(id);
    let order = own_followed(&mut following, customer, READ_WITHIN).await?;
    if order.is_final && order.version <= after {
        // Nothing will come any more; of all answers, this one makes a browser stop asking.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (events, body) = mpsc::channel(1);
    let live = app.live.clone();
    tokio::spawn(async move {
        let end = tell(following, after, &events, &live).await;
        live.ended(end);
    });
    // The place is taken until the connection is done with the body.
    let body = ReceiverStream::new(body).map(move |event| {
        let _taken = &place;
        Ok::<_, Infallible>(event)
    });
    let mut answer = Sse::new(body).into_response();
    answer.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(answer)
}

/// Sends what is newer than `last`, until the end.
async fn tell(
    mut following: wakeups::Following,
    mut last: i64,
    events: &mpsc::Sender<Event>,
    live: &Live,
) -> End {
    loop {
        // First a place in the channel, then what is newest at that moment.
        let taken = tokio::time::timeout(STALLED_AFTER, events.reserve());
        let place = match live.end.run_until_cancelled(taken).await {
            Some(Ok(Ok(place))) => place,
            Some(Ok(Err(_closed))) => return End::Client,
            Some(Err(_elapsed)) => return End::Stalled,
            None => match events.try_reserve() {
                Ok(place) => place,
                Err(_not_taken) => return End::Shutdown,
            },
        };
        tokio::select! {
            biased;
            () = live.end.cancelled() => {
                place.send(farewell(following.order()));
                return End::Shutdown;
            }
            () = events.closed() => return End::Client,
            order = following.newer(last) => {
                let Ok(event) = event(&order) else { return End::Client };
                place.send(event);
                if order.is_final {
                    return End::Final;
                }
                last = order.version;
            }
            () = tokio::time::sleep(KEEP_ALIVE) => place.send(Event::default().comment("")),
        }
    }
}

fn event(order: &Order) -> Result<Event, axum::Error> {
    let event = Event::default().event("order").id(order.version.to_string());
    event.json_data(order).inspect_err(|error| tracing::error!(%error, "an order could not be written"))
}

fn farewell(order: domain_types::OrderId) -> Event {
    let spread = COME_BACK_AFTER_MS.end - COME_BACK_AFTER_MS.start;
    let (_, part) = order.uuid().as_u64_pair();
    let after = Duration::from_millis(COME_BACK_AFTER_MS.start + part % spread);
    Event::default().retry(after).comment("this node ends; go on at another with Last-Event-ID")
}

/// The version that the client has; 0 without one.
fn last_event_id(headers: &HeaderMap) -> Result<i64, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(0) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        let detail = "Last-Event-ID must be the id of an event, a number: the order's version";
        Problem::new(StatusCode::BAD_REQUEST, "invalid_last_event_id", detail)
    })
}

fn no_place(full: Full) -> Problem {
    match full {
        Full::Node => {
            let detail = "this node has as many open streams as it takes; try again, or ask for the order";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from(FULL_RETRY_AFTER.as_secs()))
        }
        Full::Customer => {
            Problem::too_many_requests("this customer has too many open streams", FULL_RETRY_AFTER)
        }
    }
}
