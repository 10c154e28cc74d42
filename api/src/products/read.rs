//! `GET /v1/products/{sku}`: public.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use domain_types::Sku;

use crate::app::App;
use crate::http::conditional;
use crate::openapi::bodies::IfNoneMatch;
use crate::openapi::wire;
use crate::problem::Problem;
use crate::products::model::Product;

pub(crate) fn no_such_product() -> Problem {
    Problem::not_found("there is no such product")
}

/// Get a product
///
/// With what is left of it.
#[utoipa::path(
    get,
    path = "/v1/products/{sku}",
    tag = "catalogue",
    operation_id = "get_product",
    params(("sku" = inline(wire::Sku), Path, description = "The product"), IfNoneMatch),
    responses(
        (status = 200, description = "The product.", body = Product, headers(
            ("ETag" = String, description = "For `If-None-Match`."))),
        (status = 304, description = "What you have is still so.")
    )
)]
pub(crate) async fn one(
    State(app): State<App>,
    headers: HeaderMap,
    Path(sku): Path<String>,
) -> Result<Response, Problem> {
    let sku = Sku::new(sku).map_err(|_no_sku| no_such_product())?;
    let product = app.catalogue.product(&sku).await?.ok_or_else(no_such_product)?;
    conditional::respond(&headers, product.as_ref())
}
