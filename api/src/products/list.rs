//! `GET /v1/products`: public, filtered, in one of three orders, page by page.

mod store;
#[cfg(test)]
mod tests;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain_types::{Sku, Timestamp};
use schemas::{ProductKind, Sale};
use serde_json::Value;
use stock_domain::is_on_sale;

use self::store::{Filter, Order, Place, Selection};
use crate::app::{App, bounded};
use crate::http::conditional;
use crate::http::cursor;
use crate::http::fields::{Findings, text};
use crate::http::query::Parameters;
use crate::intake::now;
use crate::openapi::bodies::{IfNoneMatch, Paging, words};
use crate::openapi::refusals::Listing;
use crate::openapi::wire;
use crate::orders::read::Page;
use crate::problem::Problem;
use crate::products::model::{Product, kind_name};

/// Longest category, characters.
const MAX_CATEGORY: usize = 100;

/// Which products, in which order.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "described, never made")]
struct Filters {
    /// Only this category.
    #[param(min_length = 1, max_length = 100)]
    category: Option<String>,
    /// Only this kind.
    #[param(value_type = Option<wire::ProductKind>, inline)]
    kind: Option<ProductKind>,
    /// Only at this price or above, minor units.
    #[param(minimum = 0)]
    min_price: Option<i64>,
    /// Only at this price or below, minor units.
    #[param(minimum = 0)]
    max_price: Option<i64>,
    /// Only what can be bought at this moment: `true`, or left out.
    #[param(schema_with = only_true)]
    on_sale: Option<String>,
    /// `name` by default; `-price`: dearest first.
    #[param(schema_with = orders)]
    sort: Option<String>,
}

fn only_true() -> utoipa::openapi::Object {
    words(&["true"], "Only what can be bought at this moment: `true`, or left out.")
}

fn orders() -> utoipa::openapi::Object {
    words(&Order::ALL.map(Order::as_str), "`name` by default; `-price`: dearest first.")
}

/// List products
///
/// Sold out ones too.
#[utoipa::path(
    get,
    path = "/v1/products",
    tag = "catalogue",
    operation_id = "list_products",
    params(Filters, Paging, IfNoneMatch),
    responses(
        (status = 200, description = "A page of products.", body = Page<Product>, headers(
            ("ETag" = String, description = "For `If-None-Match`."))),
        (status = 304, description = "What you have is still so."),
        Listing
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let wanted = Wanted::from_parameters(parameters)?;
    // One instant for the whole answer: the present one, so that nothing about a sale can be out of date.
    let at = now();
    let open_daily = if wanted.on_sale { open_daily(&app, at).await? } else { Vec::new() };
    let selection = Selection {
        filter: &wanted.filter,
        on_sale_at: wanted.on_sale.then_some(at),
        open_daily: &open_daily,
    };
    // One more than wanted tells whether there is a next page.
    let limit = usize::from(wanted.limit);
    let read =
        store::page(&app.pool, wanted.order, &selection, wanted.after.clone(), i64::from(wanted.limit) + 1);
    let mut items = bounded(read).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| cursor_at(&wanted, last));
    conditional::respond(&headers, &Page { items, next })
}

/// The daily windows that are open at an instant, of all that products have.
async fn open_daily(app: &App, at: Timestamp) -> Result<Vec<String>, Problem> {
    let mut windows = bounded(store::daily_windows(&app.pool)).await?;
    windows.retain(|window| is_open(window, at));
    Ok(windows)
}

fn is_open(window: &str, at: Timestamp) -> bool {
    serde_json::from_str::<Sale>(window).is_ok_and(|sale| is_on_sale(Some(&sale), at))
}

fn cursor_at(wanted: &Wanted, product: &Product) -> String {
    match wanted.order {
        Order::Name => cursor::encode(&wanted.name, &(&product.name, &product.sku)),
        Order::Price | Order::PriceDown => {
            cursor::encode(&wanted.name, &(product.price.amount, &product.sku))
        }
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    filter: Filter,
    on_sale: bool,
    order: Order,
    /// The list with its order and filters, as its cursors know it.
    name: String,
    after: Option<Place>,
    limit: u16,
}

impl Wanted {
    fn from_parameters(mut parameters: Parameters) -> Result<Self, Problem> {
        let mut findings = Findings::default();
        let f = &mut findings;
        let limit = parameters.limit(f);
        let category = parameters.take("category", f);
        let category = category.and_then(|word| text(&Value::String(word), "category", (1, MAX_CATEGORY), f));
        let kind = parameters.take("kind", f).and_then(|word| kind(&word, f));
        let min_price = parameters.take("min_price", f).and_then(|text| price("min_price", &text, f));
        let max_price = parameters.take("max_price", f).and_then(|text| price("max_price", &text, f));
        let on_sale = parameters.take("on_sale", f).is_some_and(|word| on_sale(&word, f));
        let order = parameters.take("sort", f).map_or(Order::Name, |word| order(&word, f));
        let after = parameters.take("after", f);
        parameters.finish(findings)?;
        let filter = Filter {
            category,
            kind,
            min_price: min_price.unwrap_or(0),
            max_price: max_price.unwrap_or(i64::MAX),
        };
        let name = name(order, &filter, on_sale);
        let after = after.map(|cursor| decode(order, &name, &cursor)).transpose()?;
        Ok(Self { filter, on_sale, order, name, after, limit })
    }
}

/// The place that a cursor of this list stands for.
fn decode(order: Order, name: &str, cursor: &str) -> Result<Place, Problem> {
    Ok(match order {
        Order::Name => {
            let (product, sku) = cursor::decode::<(String, Sku)>(name, cursor)?;
            Place::Name(product, sku.to_string())
        }
        Order::Price | Order::PriceDown => {
            let (price, sku) = cursor::decode::<(i64, Sku)>(name, cursor)?;
            Place::Price(price, sku.to_string())
        }
    })
}

fn name(order: Order, filter: &Filter, on_sale: bool) -> String {
    let Filter { category, kind, min_price, max_price } = filter;
    let kind = kind.map_or("", kind_name);
    // The category comes last: it alone may hold a slash.
    let category = category.as_deref().unwrap_or_default();
    format!("products/{}/{kind}/{min_price}/{max_price}/{on_sale}/{category}", order.as_str())
}

fn kind(word: &str, findings: &mut Findings) -> Option<ProductKind> {
    let kind = [ProductKind::Normal, ProductKind::Limited].into_iter().find(|kind| kind_name(*kind) == word);
    if kind.is_none() {
        findings.add("kind", "unknown_kind", "normal or limited");
    }
    kind
}

/// An amount in minor units.
fn price(name: &'static str, text: &str, findings: &mut Findings) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(amount) if digits => Some(amount),
        _ => {
            findings.add(name, "out_of_range", format!("a whole number of minor units, 0 to {}", i64::MAX));
            None
        }
    }
}

fn on_sale(word: &str, findings: &mut Findings) -> bool {
    let wanted = word == "true";
    if !wanted {
        findings.add("on_sale", "unknown_value", "true, or leave it out");
    }
    wanted
}

fn order(word: &str, findings: &mut Findings) -> Order {
    Order::ALL.into_iter().find(|order| order.as_str() == word).unwrap_or_else(|| {
        findings.add("sort", "unknown_order", "name, price or -price");
        Order::Name
    })
}
