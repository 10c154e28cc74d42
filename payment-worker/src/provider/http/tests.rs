//! Against a real server: the peer, with a book of its own and a mood for each request.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use domain_types::{Currency, CustomerId, Money, OrderId};
use futures::{StreamExt as _, stream};
use payment_domain::{
    Action, CallNumber, ChargeAnswer, IdempotencyKey, ProviderCall, QueryAnswer, RefundAnswer, Terms,
    VoidAnswer,
};
use prometheus::IntGauge;
use schemas::PaymentMethod;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::HttpProvider;
use crate::provider::Provider;
use crate::settings::HttpSettings;

#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Does what it was asked, and never answers.
    Hangs,
    /// Does what it was asked, and answers this.
    Says(StatusCode),
    /// Does nothing, and answers this.
    Refuses(StatusCode),
    /// Does what it was asked, and answers with a reference of so many bytes.
    Swells(usize),
    /// Does what it was asked, and answers blanks without an end.
    Babbles,
    /// Does what it was asked, and stops in the middle of its answer.
    Stalls,
    /// Does what it was asked, and names another place for the answer.
    Redirects(StatusCode),
}

#[derive(Default)]
struct Shop {
    moods: VecDeque<Mood>,
    book: BTreeMap<String, Value>,
    /// Requests by method and path, with their idempotency key.
    seen: Vec<(String, Option<String>)>,
    authorization: Option<String>,
    body: Value,
}

type Shared = Arc<Mutex<Shop>>;

fn piece(text: &'static str) -> Result<&'static str, Infallible> {
    Ok(text)
}

/// Does `work` in the server's mood.
async fn serve(
    shop: &Shared,
    what: String,
    headers: &HeaderMap,
    work: impl FnOnce(&mut Shop) -> Response,
) -> Response {
    let (mood, done) = {
        let mut shop = shop.lock().unwrap();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        shop.seen.push((what, header("idempotency-key")));
        shop.authorization = header("authorization");
        let mood = shop.moods.pop_front();
        let done = if matches!(mood, Some(Mood::Refuses(_))) { None } else { Some(work(&mut shop)) };
        (mood, done)
    };
    match mood {
        None => done.unwrap(),
        Some(Mood::Hangs) => std::future::pending().await,
        Some(Mood::Says(status) | Mood::Refuses(status)) => (status, "<html>sorry</html>").into_response(),
        Some(Mood::Swells(bytes)) => {
            Json(json!({"status": "approved", "reference": "r".repeat(bytes)})).into_response()
        }
        Some(Mood::Babbles) => Body::from_stream(stream::repeat(piece(" "))).into_response(),
        Some(Mood::Stalls) => {
            Body::from_stream(stream::iter([piece("{")]).chain(stream::pending())).into_response()
        }
        Some(Mood::Redirects(status)) => {
            let location = format!("/v1/charges/{}", call().charge_key.as_str());
            (status, [(header::LOCATION, location)]).into_response()
        }
    }
}

async fn charge(State(shop): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    serve(&shop, "charge".into(), &headers, |shop| {
        let fate = match body["method"].as_str() {
            Some("good") => json!({"status": "approved", "reference": "ref-1"}),
            _ => json!({"status": "declined", "reason": "over_limit"}),
        };
        shop.body = body;
        Json(shop.book.entry(key).or_insert(fate).clone()).into_response()
    })
    .await
}

async fn query(State(shop): State<Shared>, headers: HeaderMap, Path(key): Path<String>) -> Response {
    serve(&shop, "query".into(), &headers, |shop| match shop.book.get(&key) {
        Some(fate) => Json(fate.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"status": "not_found"}))).into_response(),
    })
    .await
}

async fn void(State(shop): State<Shared>, headers: HeaderMap, Path(key): Path<String>) -> Response {
    serve(&shop, "void".into(), &headers, |shop| {
        Json(shop.book.entry(key).or_insert(json!({"status": "voided"})).clone()).into_response()
    })
    .await
}

async fn refund(State(shop): State<Shared>, headers: HeaderMap, Path(key): Path<String>) -> Response {
    serve(&shop, "refund".into(), &headers, |shop| match shop.book.get(&key) {
        Some(fate) if fate["status"] == "approved" => {
            Json(json!({"status": "refunded", "reference": "back-1"})).into_response()
        }
        _ => {
            (StatusCode::CONFLICT, Json(json!({"status": "refused", "code": "Not Charged"}))).into_response()
        }
    })
    .await
}

struct Peer {
    shop: Shared,
    provider: HttpProvider,
    gauge: IntGauge,
}

impl Peer {
    async fn start(change: impl FnOnce(&mut HttpSettings)) -> Self {
        let shop = Shared::default();
        let router = Router::new()
            .route("/v1/charges", post(charge))
            .route("/v1/charges/{key}", get(query))
            .route("/v1/charges/{key}/void", post(void))
            .route("/v1/charges/{key}/refunds", post(refund))
            .with_state(Arc::clone(&shop));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut settings = settings(&format!("http://{address}/v1"));
        change(&mut settings);
        let gauge = IntGauge::new("breaker", "test").unwrap();
        Self { shop, provider: HttpProvider::new(&settings, gauge.clone()).unwrap(), gauge }
    }

    fn moods(&self, moods: &[Mood]) {
        self.shop.lock().unwrap().moods.extend(moods);
    }

    fn seen(&self) -> Vec<String> {
        self.shop.lock().unwrap().seen.iter().map(|(what, _)| what.clone()).collect()
    }

    async fn charge(&self, method: &str) -> ChargeAnswer {
        self.provider.charge(&call(), &terms(method)).await
    }
}

fn settings(base_url: &str) -> HttpSettings {
    HttpSettings {
        base_url: base_url.to_owned(),
        token: Some("secret".into()),
        timeout_ms: 300,
        connect_timeout_ms: 300,
        retries: 0,
        retry_pause_ms: 5,
        breaker_failures: 3,
        breaker_open_ms: 200,
    }
}

fn call() -> ProviderCall {
    let order_id = OrderId(Uuid::from_u128(7));
    ProviderCall {
        order_id,
        customer_id: CustomerId(Uuid::from_u128(8)),
        number: CallNumber(1),
        charge_key: IdempotencyKey::charge(order_id),
        action: Action::Query,
        not_before: None,
        traceparent: None,
    }
}

fn terms(method: &str) -> Terms {
    Terms { amount: Money::new(500, Currency::KRW), method: PaymentMethod(method.into()) }
}

fn approved() -> ChargeAnswer {
    ChargeAnswer::Approved { reference: "ref-1".into() }
}

#[tokio::test]
async fn a_charge_carries_key_token_and_terms_and_its_answers_are_understood() {
    let peer = Peer::start(|_| {}).await;
    assert_eq!(peer.charge("good").await, approved());
    {
        let shop = peer.shop.lock().unwrap();
        assert_eq!(shop.seen[0].1.as_deref(), Some(call().charge_key.as_str()));
        assert_eq!(shop.authorization.as_deref(), Some("Bearer secret"));
        assert_eq!(shop.body["amount"], json!({"amount": 500, "currency": "KRW"}));
        assert_eq!(shop.body["order_id"], json!(call().order_id.to_string()));
    }
    let refunded = peer.provider.refund(&call(), terms("good").amount).await;
    assert_eq!(refunded, RefundAnswer::Refunded { reference: "back-1".into() });
    let other = Peer::start(|_| {}).await;
    assert_eq!(other.charge("bad").await, ChargeAnswer::Declined(schemas::DeclineReason::OverLimit));
    let refused = other.provider.refund(&call(), terms("bad").amount).await;
    assert_eq!(refused, RefundAnswer::Refused { code: "not_charged".into() });
}

#[tokio::test]
async fn a_time_out_is_unknown_and_a_query_finds_the_outcome() {
    let peer = Peer::start(|_| {}).await;
    peer.moods(&[Mood::Hangs]);
    assert_eq!(peer.charge("good").await, ChargeAnswer::Unknown);
    assert_eq!(peer.provider.query(&call()).await, QueryAnswer::Approved { reference: "ref-1".into() });
}

#[tokio::test]
async fn a_key_never_seen_is_not_found_and_a_void_bars_it() {
    let peer = Peer::start(|_| {}).await;
    assert_eq!(peer.provider.query(&call()).await, QueryAnswer::NotFound);
    assert_eq!(peer.provider.void(&call()).await, VoidAnswer::Voided);
    assert_eq!(peer.charge("good").await, ChargeAnswer::Voided);
}

#[tokio::test]
async fn server_errors_and_strange_answers_are_unknown_and_a_repeat_with_the_same_key_settles_it() {
    let peer = Peer::start(|settings| settings.breaker_failures = 100).await;
    let strange = [
        Mood::Says(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Says(StatusCode::SERVICE_UNAVAILABLE),
        Mood::Refuses(StatusCode::BAD_REQUEST),
        Mood::Refuses(StatusCode::NOT_FOUND),
        Mood::Refuses(StatusCode::UNAUTHORIZED),
        Mood::Says(StatusCode::OK),
    ];
    for mood in strange {
        peer.moods(&[mood]);
        assert_eq!(peer.charge("good").await, ChargeAnswer::Unknown, "{mood:?}");
    }
    assert_eq!(peer.charge("good").await, approved());
    let keys: Vec<_> = peer.shop.lock().unwrap().seen.iter().map(|(_, key)| key.clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_unknown_and_a_long_word_is_cut() {
    let peer = Peer::start(|settings| settings.breaker_failures = 100).await;
    for mood in [Mood::Swells(super::BODY_BYTES), Mood::Babbles, Mood::Stalls] {
        peer.moods(&[mood]);
        let answered = tokio::time::timeout(Duration::from_secs(5), peer.charge("good")).await;
        assert_eq!(answered, Ok(ChargeAnswer::Unknown), "{mood:?}");
    }
    peer.moods(&[Mood::Swells(super::BODY_BYTES / 2)]);
    let ChargeAnswer::Approved { reference } = peer.charge("good").await else { panic!("it is an answer") };
    assert_eq!(reference.len(), 200);
}

#[tokio::test]
async fn a_redirect_of_the_provider_is_not_followed() {
    let peer = Peer::start(|_| {}).await;
    let redirects = [StatusCode::FOUND, StatusCode::SEE_OTHER, StatusCode::TEMPORARY_REDIRECT];
    for status in redirects {
        peer.moods(&[Mood::Redirects(status)]);
        assert_eq!(peer.charge("good").await, ChargeAnswer::Unknown, "{status}");
    }
    assert_eq!(peer.seen(), ["charge"; 3]);
}

#[tokio::test]
async fn a_strange_not_found_of_a_proxy_is_not_the_providers_not_found() {
    let peer = Peer::start(|_| {}).await;
    peer.moods(&[Mood::Refuses(StatusCode::NOT_FOUND)]);
    assert_eq!(peer.provider.query(&call()).await, QueryAnswer::Unknown);
}

#[tokio::test]
async fn failures_are_repeated_with_back_off_within_a_call() {
    let peer = Peer::start(|settings| settings.retries = 2).await;
    peer.moods(&[Mood::Says(StatusCode::BAD_GATEWAY), Mood::Hangs]);
    assert_eq!(peer.charge("good").await, approved());
    assert_eq!(peer.seen().len(), 3);
}

#[tokio::test]
async fn too_many_requests_is_not_sent() {
    let peer = Peer::start(|_| {}).await;
    peer.moods(&[Mood::Refuses(StatusCode::TOO_MANY_REQUESTS)]);
    assert_eq!(peer.charge("good").await, ChargeAnswer::NotSent);
}

#[tokio::test]
async fn a_refused_connection_is_not_sent_but_a_lost_answer_before_it_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gauge = IntGauge::new("breaker", "test").unwrap();
    let provider = HttpProvider::new(&settings(&format!("http://{address}")), gauge).unwrap();
    assert_eq!(provider.charge(&call(), &terms("good")).await, ChargeAnswer::NotSent);

    // The breaker opens on the lost answer, so the repeat is not sent: the call's outcome stays unknown.
    let peer = Peer::start(|settings| {
        settings.retries = 1;
        settings.breaker_failures = 1;
    })
    .await;
    peer.moods(&[Mood::Hangs]);
    assert_eq!(peer.charge("good").await, ChargeAnswer::Unknown);
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn the_breaker_opens_keeps_calls_away_and_lets_one_try_later() {
    let peer = Peer::start(|settings| settings.breaker_open_ms = 1_000).await;
    peer.moods(&[Mood::Refuses(StatusCode::INTERNAL_SERVER_ERROR); 4]);
    for _ in 0..3 {
        assert_eq!(peer.charge("good").await, ChargeAnswer::Unknown);
    }
    assert_eq!(peer.gauge.get(), 2);
    assert_eq!(peer.charge("good").await, ChargeAnswer::NotSent);
    assert_eq!(peer.seen().len(), 3, "an open breaker lets nothing through");

    let next_that_is_let_through = || async {
        testkit::eventually(Duration::from_secs(5), "the breaker lets a call through", async || {
            match peer.charge("good").await {
                ChargeAnswer::NotSent => Err("still open"),
                answer => Ok(answer),
            }
        })
        .await
    };
    assert_eq!(next_that_is_let_through().await, ChargeAnswer::Unknown, "the trial fails");
    assert_eq!(peer.gauge.get(), 2);
    assert_eq!(next_that_is_let_through().await, approved(), "the next one succeeds");
    assert_eq!(peer.gauge.get(), 0);
    assert_eq!(peer.seen().len(), 5);
}

#[test]
fn a_base_url_that_is_none_is_refused() {
    for url in ["", "pay.example.com", "ftp://pay.example.com"] {
        assert!(HttpProvider::new(&settings(url), IntGauge::new("b", "b").unwrap()).is_err(), "{url}");
    }
}
