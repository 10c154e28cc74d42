//! `PUT /v1/admin/products/{sku}` and `POST .../restock`. The stock worker decides; here is only asked and waited.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain_types::{RequestId, Sku};
use schemas::{ChangeStock, DefineProduct, StockCommand};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{App, bounded};
use crate::auth::Admin;
use crate::http::body::{Json as Body, idempotency_key};
use crate::http::context::Trace;
use crate::intake::now;
use crate::openapi::bodies::{ProductDefinition, RequiredIdempotencyKey, StockIncrement};
use crate::openapi::refusals::{Defining, Restocking};
use crate::openapi::wire;
use crate::problem::{FieldError, Problem};
use crate::products::changes::{publish, under_way};
use crate::products::model::{ChangeState, Product, StockChange};
use crate::products::read::no_such_product;
use crate::products::store;
use crate::products::validate::{self, Definition, Restock};

/// How long a definition waits until every node can read it.
const READABLE_WITHIN: Duration = Duration::from_secs(2);
/// Pauses between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The version of a sku's first ledger entry: the one that made it.
const FIRST_ENTRY: i64 = 1;

/// Create or change a product
///
/// Answers once every node can read it, or after 2 s.
#[utoipa::path(
    put,
    path = "/v1/admin/products/{sku}",
    tag = "admin",
    operation_id = "define_product",
    params(("sku" = inline(wire::Sku), Path, description = "The product")),
    request_body = ProductDefinition,
    responses(
        (status = 200, description = "Changed; every node shows it.", body = Product, headers(
            ("Location" = String, description = "Where the product is."))),
        (status = 201, description = "Created; every node shows it.", body = Product, headers(
            ("Location" = String, description = "Where the product is."))),
        (status = 202, description = "Under way.", body = StockChange, headers(
            ("Location" = String, description = "Where to ask what became of it."))),
        Defining
    ),
    security(("bearer" = ["admin"]))
)]
pub(crate) async fn define(
    _: Admin,
    State(app): State<App>,
    Path(sku): Path<String>,
    Extension(trace): Extension<Trace>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let sku = validate::sku(&sku)?;
    let Definition { product, initial_stock } = Definition::from_json(body)?;
    if initial_stock.is_none() && !bounded(store::is_known(&app.pool, &sku)).await? {
        return Err(initial_stock_required());
    }
    app.publisher.reachable().await.map_err(|_away| Problem::unavailable("kafka"))?;
    let deadline = Instant::now() + READABLE_WITHIN;
    let (id, at) = (RequestId(Uuid::now_v7()), now());
    let name = (product.name.as_str(), product.option.as_deref());
    if !bounded(store::reserve_name(&app.pool, id, &sku, name, at)).await? {
        let detail = "another product has this name and option";
        return Err(Problem::conflict("duplicate_name", detail));
    }
    let command = DefineProduct { request_id: id, sku: sku.clone(), product, initial_stock };
    publish(&app, id, &sku, StockCommand::DefineProduct(command), (&trace, at)).await?;
    while Instant::now() < deadline {
        let change = bounded(store::change(&app.pool, id)).await?;
        if let Some(answer) = answered(&app, change).await? {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    under_way(&app, id).await
}

fn initial_stock_required() -> Problem {
    let detail = "a new product needs it";
    Problem::invalid(vec![FieldError::new("/initial_stock", "required", detail)])
}

/// The answer to a definition, once there is one that every node shows.
async fn answered(app: &App, change: Option<StockChange>) -> Result<Option<Response>, Problem> {
    let Some(change) = change else { return Ok(None) };
    match change.state {
        ChangeState::Pending => Ok(None),
        ChangeState::Applied => {
            let as_of = std::time::Instant::now();
            let Some(found) = bounded(store::product_with(&app.pool, &change)).await? else {
                return Ok(None);
            };
            let is_new = change.stock_version == Some(FIRST_ENTRY);
            // The cache may hold what the product was before, for every node that reaches it.
            if app.catalogue.show(&found, as_of).await.is_err() && !is_new {
                return Ok(None);
            }
            let product = found.product;
            let location = [(header::LOCATION, format!("/v1/products/{}", product.sku))];
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Some((status, location, Json(product)).into_response()))
        }
        ChangeState::Refused => match change.code {
            Some(code) if code == "initial_stock_required" => Err(initial_stock_required()),
            code => {
                let code = code.unwrap_or_else(|| "refused".to_owned());
                Err(Problem::conflict(code, "the stock worker refused this change"))
            }
        },
    }
}

/// Add or take away units
///
/// What is available never falls below 0. `Location` tells what became of it.
#[utoipa::path(
    post,
    path = "/v1/admin/products/{sku}/restock",
    tag = "admin",
    operation_id = "restock_product",
    params(("sku" = inline(wire::Sku), Path, description = "The product"), RequiredIdempotencyKey),
    request_body = StockIncrement,
    responses(
        (status = 202, description = "Sent, or, for a repeat, what became of it.", body = StockChange, headers(
            ("Location" = String, description = "Where to ask what became of it."))),
        Restocking
    ),
    security(("bearer" = ["admin"]))
)]
pub(crate) async fn restock(
    Admin(admin): Admin,
    State(app): State<App>,
    Path(sku): Path<String>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let sku = Sku::new(sku).map_err(|_no_sku| no_such_product())?;
    let key = idempotency_key(&headers)?.ok_or_else(|| {
        let detail = "a change of stock needs a key, so that it can be repeated";
        Problem::invalid(vec![FieldError::new("Idempotency-Key", "required", detail)])
    })?;
    let Restock { quantity, reason } = Restock::from_json(body)?;
    if !bounded(store::is_known(&app.pool, &sku)).await? {
        return Err(no_such_product());
    }
    app.publisher.reachable().await.map_err(|_away| Problem::unavailable("kafka"))?;
    let id = RequestId(Uuid::new_v5(&admin.uuid(), format!("restock:{key}").as_bytes()));
    let fingerprint = fingerprint(&sku, quantity, &reason);
    let at = now();
    let is_new = bounded(store::remember_change(&app.pool, id, &sku, quantity, &fingerprint, at)).await?;
    if !is_new {
        let there = bounded(store::change(&app.pool, id)).await?.ok_or_else(Problem::internal)?;
        let same = there.sku == sku
            && there.quantity == Some(quantity)
            && there.fingerprint.is_none_or(|theirs| theirs == fingerprint);
        if !same {
            return Err(Problem::unprocessable(
                "idempotency_key_reused",
                "this Idempotency-Key names another change",
                vec![FieldError::new("Idempotency-Key", "reused", "take a new key for a new change")],
            ));
        }
        if there.state != ChangeState::Pending {
            return under_way(&app, id).await;
        }
    }
    // A pending one is published again: the worker applies a request once.
    let command = ChangeStock { request_id: id, sku: sku.clone(), quantity, reason };
    publish(&app, id, &sku, StockCommand::ChangeStock(command), (&trace, at)).await?;
    under_way(&app, id).await
}

fn fingerprint(sku: &Sku, quantity: i64, reason: &str) -> String {
    let digest = Sha256::digest(format!("{sku}\n{quantity}\n{reason}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
