//! The floor of a sold-out answer: axum and the api's own admission script in the same Redis, and nothing else. No token,
//! no validation, no limit of a customer, no trace.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use hyper::Method;
use redis::Script;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::http::client::{Call, Connection, problem_code};
use crate::http::drive::Shop;
use crate::latency::Latency;

/// The very files that the api is built with.
static ADMIT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../../api/src/admission/admit.lua")));
static FEED: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../../api/src/admission/feed.lua")));

/// Three days, as the api remembers an order.
const REMEMBERED_MS: u64 = 3 * 86_400_000;

/// A door to one product that is sold out.
pub(crate) struct BareDoor {
    pub(crate) address: String,
    pub(crate) sku: String,
    redis: MultiplexedConnection,
    _stop: DropGuard,
}

#[derive(Deserialize)]
struct NewOrder {
    lines: Vec<NewLine>,
}

#[derive(Deserialize)]
struct NewLine {
    sku: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn keys(sku: &str) -> [String; 2] {
    [format!("door:{{{sku}}}"), format!("door:{{{sku}}}:open")]
}

impl BareDoor {
    /// Opens it, on a runtime of its own like a service's, until dropped.
    pub(crate) async fn open(redis_url: &str) -> anyhow::Result<Self> {
        let sku = format!("LOAD-BARE-{}", Uuid::new_v4().simple());
        let client = redis::Client::open(redis_url)?;
        let mut redis = client.get_multiplexed_async_connection().await.context("redis does not answer")?;
        let [key, open] = keys(&sku);
        let mut feed = FEED.key(key);
        // Version, product version, granted, available, limit, sale, open, until, generation, complete until, wrong.
        feed.key(open).arg(1).arg(1).arg(1).arg(0).arg("").arg("null").arg(1).arg("");
        feed.arg(now_ms()).arg(0).arg("").arg("").arg("");
        feed.invoke_async::<Vec<String>>(&mut redis).await?;
        let stop = CancellationToken::new();
        let (address, bound) = tokio::sync::oneshot::channel();
        let (url, token) = (redis_url.to_owned(), stop.clone());
        std::thread::Builder::new().name("bare-door".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                runtime.block_on(token.run_until_cancelled(serve(&url, address))).unwrap_or(Ok(()))
            });
            if let Err(error) = served {
                eprintln!("the bare door does not open: {error:#}");
            }
        })?;
        let address = bound.await.context("the bare door did not open")?;
        Ok(Self { address, sku, redis, _stop: stop.drop_guard() })
    }

    /// Closes it, and removes what it had in Redis.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        let keys = keys(&self.sku);
        redis::cmd("DEL").arg(&keys).exec_async(&mut self.redis).await?;
        Ok(())
    }
}

async fn serve(redis_url: &str, bound: tokio::sync::oneshot::Sender<String>) -> anyhow::Result<()> {
    let redis = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let app = Router::new().route("/v1/orders", post(order)).with_state(redis);
    bound.send(address).ok();
    Ok(axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            stream.set_nodelay(true).ok();
        }),
        app,
    )
    .await?)
}

async fn order(State(mut redis): State<MultiplexedConnection>, Json(order): Json<NewOrder>) -> Response {
    let Some(line) = order.lines.first() else { return StatusCode::BAD_REQUEST.into_response() };
    let (order, customer, now) = (Uuid::now_v7(), Uuid::new_v4(), now_ms());
    let [key, open] = keys(&line.sku);
    let mut admit = ADMIT.key(&key);
    admit.key(open).key(format!("{key}:o:{order}")).key(format!("{key}:c:{customer}"));
    admit.arg(REMEMBERED_MS);
    admit.arg(order.to_string()).arg(Uuid::new_v4().to_string()).arg("bare").arg(line.quantity);
    admit.arg(now).arg(now + 30_000).arg("").arg("").arg("").arg(customer.to_string()).arg("");
    let answers: Result<Vec<Vec<String>>, _> = admit.invoke_async(&mut redis).await;
    match answers.ok().and_then(|answers| answers.into_iter().flatten().next()) {
        Some(word) => {
            let problem = [(header::CONTENT_TYPE, "application/problem+json")];
            (StatusCode::CONFLICT, problem, Json(Problem { code: &word })).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// What some seconds at one door brought.
#[derive(Default, Serialize)]
pub(crate) struct Answers {
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
}

/// Asks for a sold-out product on so many connections, each again as soon as it is answered.
pub(crate) async fn storm(
    shop: &Arc<Shop>,
    address: &str,
    sku: &str,
    connections: usize,
    lasts: Duration,
) -> anyhow::Result<Answers> {
    let (begun, mut askers) = (Instant::now(), tokio::task::JoinSet::new());
    let body = Bytes::from(format!(r#"{{"lines":[{{"sku":"{sku}","quantity":1}}]}}"#));
    for number in 0..connections {
        let (shop, body, mut connection) = (Arc::clone(shop), body.clone(), Connection::new(address)?);
        askers.spawn(async move {
            let (mut latency, mut customer) = (Latency::default(), number);
            while begun.elapsed() < lasts {
                let authorization = shop.customers.get(customer % shop.customers.len());
                customer += connections;
                let call =
                    Call { method: Method::POST, path: "/v1/orders", authorization, body: body.clone() };
                let asked = Instant::now();
                let answer = connection.send(call).await?;
                latency.record(asked.elapsed());
                let code = problem_code(&answer.body);
                anyhow::ensure!(code == "sold_out", "answered {} {code} instead of sold_out", answer.status);
            }
            Ok(latency)
        });
    }
    let mut answers = Answers::default();
    while let Some(asked) = askers.join_next().await {
        answers.latency.merge(&asked??);
    }
    let count = crate::http::plan::to_f64(answers.latency.figures().tries);
    answers.per_second = count / begun.elapsed().as_secs_f64();
    Ok(answers)
}
