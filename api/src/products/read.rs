//! `GET /v1/products` and `GET /v1/products/{sku}`: public.

use axum::Json;
use axum::extract::{Path, State};
use domain_types::Sku;

use crate::app::{App, bounded};
use crate::http::cursor;
use crate::http::fields::Findings;
use crate::http::query::Parameters;
use crate::orders::read::Page;
use crate::problem::Problem;
use crate::products::model::Product;
use crate::products::store;

/// The name of the list in its cursors.
const BY_NAME: &str = "products/name";

pub(crate) fn no_such_product() -> Problem {
    Problem::not_found("there is no such product")
}

pub(crate) async fn one(State(app): State<App>, Path(sku): Path<String>) -> Result<Json<Product>, Problem> {
    let sku = Sku::new(sku).map_err(|_no_sku| no_such_product())?;
    bounded(store::product(&app.pool, &sku)).await?.map(Json).ok_or_else(no_such_product)
}

pub(crate) async fn list(
    State(app): State<App>,
    mut parameters: Parameters,
) -> Result<Json<Page<Product>>, Problem> {
    let mut findings = Findings::default();
    let limit = parameters.limit(&mut findings);
    let after = parameters.take("after", &mut findings);
    parameters.finish(findings)?;
    let after = after.map(|text| cursor::decode::<store::Position>(BY_NAME, &text)).transpose()?;
    let mut items = bounded(store::list(&app.pool, after.as_ref(), i64::from(limit) + 1)).await?;
    let more = items.len() > usize::from(limit);
    items.truncate(usize::from(limit));
    let next = items.last().filter(|_| more).map(|last| cursor::encode(BY_NAME, &(&last.name, &last.sku)));
    Ok(Json(Page { items, next }))
}
