//! `GET /v1/products/{sku}`: public.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use domain_types::Sku;

use crate::app::{App, bounded};
use crate::http::conditional;
use crate::problem::Problem;
use crate::products::store;

pub(crate) fn no_such_product() -> Problem {
    Problem::not_found("there is no such product")
}

pub(crate) async fn one(
    State(app): State<App>,
    headers: HeaderMap,
    Path(sku): Path<String>,
) -> Result<Response, Problem> {
    let sku = Sku::new(sku).map_err(|_no_sku| no_such_product())?;
    let product = bounded(store::product(&app.pool, &sku)).await?.ok_or_else(no_such_product)?;
    conditional::respond(&headers, &product)
}
