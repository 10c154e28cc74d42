//! The worker with a provider over HTTP that is away, loses answers, and can't void what it has not seen.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schemas::OrderSagaMessage;
use serde_json::{Value, json};
use support::{DEADLINE, Order, World};
use testkit::eventually;
use tokio::net::TcpListener;

#[derive(Default)]
struct Shop {
    charges: BTreeMap<String, Value>,
    charge_requests: u32,
    queries: u32,
}

type Shared = Arc<Mutex<Shop>>;

/// The first answer to each key is lost: an error after the deed.
async fn charge(State(shop): State<Shared>, headers: HeaderMap) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let mut shop = shop.lock().unwrap();
    shop.charge_requests += 1;
    if shop.charges.contains_key(&key) {
        return Json(shop.charges[&key].clone()).into_response();
    }
    shop.charges.insert(key, json!({"status": "approved", "reference": "r"}));
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

async fn look(State(shop): State<Shared>, Path(key): Path<String>) -> Response {
    let mut shop = shop.lock().unwrap();
    shop.queries += 1;
    match shop.charges.get(&key) {
        Some(charge) => Json(charge.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"status": "not_found"}))).into_response(),
    }
}

async fn serve(address: SocketAddr) -> Shared {
    let shop = Shared::default();
    let router = Router::new()
        .route("/charges", post(charge))
        .route("/charges/{key}", get(look))
        .route("/charges/{key}/void", post(look))
        .with_state(Arc::clone(&shop));
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    shop
}

#[tokio::test]
async fn a_provider_that_was_away_and_loses_answers_charges_once() {
    let world = World::on(testkit::infra().await).await;
    let address = SocketAddr::from(([127, 0, 0, 1], local_stack::free_port().unwrap()));
    let url = format!("http://{address}");
    let admin_port = local_stack::free_port().unwrap().to_string();
    let _worker = world.start_process(&[
        ("PAYMENT_WORKER__HTTP_PROVIDER__BASE_URL", &url),
        ("PAYMENT_WORKER__HTTP_PROVIDER__RETRIES", "0"),
        ("PAYMENT_WORKER__HTTP_PROVIDER__BREAKER_FAILURES", "3"),
        ("PAYMENT_WORKER__HTTP_PROVIDER__BREAKER_OPEN_MS", "200"),
        ("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "20"),
        ("PAYMENT_WORKER__CALLS__LONGEST_RETRY_MS", "200"),
        ("PAYMENT_WORKER__CALLS__LATE_REQUEST_LIMIT_S", "2"),
        ("PAYMENT_WORKER__ADMIN_LISTEN", &format!("127.0.0.1:{admin_port}")),
    ]);
    let (order, closed) = (Order::new(), Order::new());
    world.send(&[order.charge("card", 1), closed.charge("card", 1)]).await;
    eventually(DEADLINE, "the breaker is open", async || {
        let metrics = metrics(&admin_port).await.map_err(|error| error.to_string())?;
        if metrics.contains("payment_provider_breaker_state 2") { Ok(()) } else { Err("closed".to_owned()) }
    })
    .await;
    // The other order may have opened it alone: partitions are taken over one after another.
    eventually(DEADLINE, "nothing is guessed", async || match world.state(&order).await.as_deref() {
        Some("requested") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // This one is closed while the provider is away. It never sees the charge, and can't bar it.
    world.send(&[closed.close(1)]).await;
    eventually(DEADLINE, "closing", async || match world.state(&closed).await.as_deref() {
        Some("closing") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let shop = serve(address).await;
    assert!(matches!(world.message(&order).await, OrderSagaMessage::PaymentApproved(_)));
    let replies = world.messages(&closed, 2).await;
    assert!(replies.iter().all(|reply| matches!(reply, OrderSagaMessage::PaymentClosed(_))), "{replies:?}");
    let shop = shop.lock().unwrap();
    assert_eq!(shop.charges.keys().collect::<Vec<_>>(), [&format!("charge-{}", order.id)]);
    assert_eq!(shop.charge_requests, 1, "a query found the outcome");
    assert!(shop.queries > 0);
}

async fn metrics(port: &str) -> Result<String, std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
