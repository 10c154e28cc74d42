//! `GET /v1/orders/{id}` and `GET /v1/orders`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use domain_types::{CustomerId, OrderId};
use schemas::OrderState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, bounded};
use crate::auth::Customer;
use crate::http::cursor;
use crate::http::fields::Findings;
use crate::http::query::Parameters;
use crate::openapi::bodies::Paging;
use crate::openapi::refusals::Listing;
use crate::orders::model::Order;
use crate::orders::store;
use crate::problem::Problem;
use crate::wakeups::Following;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// The next page's `after`; null on the last page.
    #[schema(required)]
    pub(crate) next: Option<String>,
}

/// An order of this customer, with its pending requests. Somebody else's is not there.
///
/// # Errors
/// `404`, or `503` if the database is away.
pub(crate) async fn own_order(app: &App, customer: CustomerId, id: OrderId) -> Result<Order, Problem> {
    let order = bounded(store::order(&app.pool, id)).await?;
    let mut order = order.filter(|order| order.customer_id == customer).ok_or_else(no_such_order)?;
    let pending = bounded(store::pending(&app.pool, &[id])).await?;
    order.show_pending(pending.into_iter().map(|(_, request)| request).collect());
    Ok(order)
}

/// The same for an order that is followed: it is read together with others, after at most `within`.
///
/// # Errors
/// See [`own_order`].
pub(crate) async fn own_followed(
    following: &mut Following,
    customer: CustomerId,
    within: Duration,
) -> Result<Arc<Order>, Problem> {
    let present = tokio::time::timeout(within, following.present()).await;
    let present = present.map_err(|_elapsed| Problem::unavailable("the database"))?;
    present.filter(|order| order.customer_id == customer).ok_or_else(no_such_order)
}

fn no_such_order() -> Problem {
    Problem::not_found("you have no such order")
}

/// The id in a path; what is no id names nothing.
pub(crate) fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_no_id| no_such_order())
}

/// Get an order
///
/// Found from the moment its id was given out, at any node.
#[utoipa::path(
    get,
    path = "/v1/orders/{id}",
    tag = "orders",
    operation_id = "get_order",
    params(("id" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The order as it is now.", body = Order)),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn one(
    Customer(customer): Customer,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Problem> {
    own_order(&app, customer, order_id(&id)?).await.map(Json)
}

/// Which orders of the list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "described, never made")]
struct Filters {
    /// Only orders in these states, separated by commas.
    #[param(pattern = "^[A-Z_]+(,[A-Z_]+)*$", example = "CANCELLED,RETURNED")]
    state: Option<String>,
}

/// List your orders
///
/// Newest first; those whose saga has begun.
#[utoipa::path(
    get,
    path = "/v1/orders",
    tag = "orders",
    operation_id = "list_orders",
    params(Filters, Paging),
    responses((status = 200, description = "A page of orders.", body = Page<Order>), Listing),
    security(("bearer" = ["customer"]))
)]
pub(crate) async fn list(
    Customer(customer): Customer,
    State(app): State<App>,
    mut parameters: Parameters,
) -> Result<Json<Page<Order>>, Problem> {
    let mut findings = Findings::default();
    let limit = parameters.limit(&mut findings);
    let states = parameters.take("state", &mut findings).map(|text| states(&text, &mut findings));
    let after = parameters.take("after", &mut findings);
    parameters.finish(findings)?;
    let states = states.unwrap_or_default();
    let name = list_name(customer, &states);
    let after = after.map(|cursor| cursor::decode::<store::Position>(&name, &cursor)).transpose()?;
    // One more than wanted tells whether there is a next page.
    let wanted = i64::from(limit);
    let mut items = bounded(store::list(&app.pool, customer, &states, after, wanted + 1)).await?;
    let more = items.len() > usize::from(limit);
    items.truncate(usize::from(limit));
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(&name, &(last.created_at.as_millis(), last.id)));
    show_pending(&app, &mut items).await?;
    Ok(Json(Page { items, next }))
}

async fn show_pending(app: &App, orders: &mut [Order]) -> Result<(), Problem> {
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    for (id, request) in bounded(store::pending(&app.pool, &ids)).await? {
        if let Some(order) = orders.iter_mut().find(|order| order.id == id) {
            order.show_pending(vec![request]);
        }
    }
    Ok(())
}

/// `A,B`: each a state.
fn states(text: &str, findings: &mut Findings) -> Vec<OrderState> {
    let mut states = Vec::new();
    for word in text.split(',') {
        match OrderState::ALL.into_iter().find(|state| state.as_str() == word) {
            Some(state) => states.push(state),
            None => findings.add("state", "unknown_state", "a list of states, separated by commas"),
        }
    }
    states.sort_unstable();
    states.dedup();
    states
}

fn list_name(customer: CustomerId, states: &[OrderState]) -> String {
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    format!("orders/{customer}/{}", states.join(","))
}
