//! Nodes, tokens, and the other services' part.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Addresses, Settings, run_reporting};
use domain_types::{Currency, CustomerId, MessageId, Money, OrderId, Quantity, Sku, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local_stack::Stack;
use messaging::{Output, Publisher, Record, TailFrom};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use schemas::{
    Envelope, Message, OrderChanged, OrderEvent, OrderPlaced, OrderSagaMessage, OrderState, OrderedLine,
    ProductData, ProductKind, StockLevel, StockLevelMessage, Topic,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::eventually;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

pub(crate) const SECRET: &[u8] = b"a development secret of 32 bytes";
/// As many as Redis has unless told otherwise.
const REDIS_DATABASES: usize = 16;
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A test's own part of Redis: the nodes of all tests read the same topics, and each shows what its own database has.
fn redis_database(stack: &Stack) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let database = NEXT.fetch_add(1, Ordering::Relaxed) % REDIS_DATABASES;
    format!("{}/{database}", stack.redis_url().trim_end_matches('/'))
}

/// A test's own world: a database and a log.
pub(crate) struct World {
    pub(crate) brokers: String,
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
    pub(crate) pool: PgPool,
    pub(crate) group: String,
    pub(crate) publisher: Publisher,
    pub(crate) dir: PathBuf,
}

impl World {
    /// On the stack of this test process.
    pub(crate) async fn shared() -> Self {
        Self::on(testkit::infra().await).await
    }

    pub(crate) async fn on(stack: &Stack) -> Self {
        // RUST_LOG=api=debug,messaging=debug shows what the nodes of all tests do.
        let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
        let filter = service_kit::log_filter("RUST_LOG", "error");
        let _another_test_did = logs.with_writer(std::io::stderr).finish().with(filter).try_init();
        local_stack::topics::ensure(&stack.kafka(), 2).await.unwrap();
        let database_url = testkit::database_in(stack, "api").await;
        let dir = std::env::temp_dir().join(testkit::unique("firstcome-api-test", '-'));
        std::fs::create_dir_all(&dir).unwrap();
        let world = Self {
            brokers: stack.kafka(),
            redis_url: redis_database(stack),
            pool: PgPool::connect_lazy(&database_url).unwrap(),
            database_url,
            group: testkit::unique("api", '-'),
            publisher: Publisher::new(&stack.kafka(), "api-test").unwrap(),
            dir,
        };
        world.write_keys(&json!([development_key("dev", SECRET)]));
        world
    }

    pub(crate) fn keys_file(&self) -> PathBuf {
        self.dir.join("keys.json")
    }

    pub(crate) fn write_keys(&self, keys: &Value) {
        let new = self.dir.join("keys.new");
        std::fs::write(&new, json!({"keys": keys}).to_string()).unwrap();
        std::fs::rename(new, self.keys_file()).unwrap();
    }

    pub(crate) fn settings(&self) -> Settings {
        serde_json::from_value(json!({
            "listen": "127.0.0.1:0",
            "brokers": self.brokers,
            "redis_urls": [self.redis_url],
            "database_url": self.database_url,
            "keys_file": self.keys_file(),
            "consumer_group": self.group,
        }))
        .unwrap()
    }

    pub(crate) async fn node(&self) -> Node {
        Node::start(self.settings()).await
    }

    /// Two nodes that share the projection's partitions, and are done with sharing them out.
    pub(crate) async fn two_nodes(&self) -> (Node, Node) {
        self.two_nodes_with(self.settings(), self.settings()).await
    }

    pub(crate) async fn two_nodes_with(&self, one: Settings, other: Settings) -> (Node, Node) {
        let nodes = tokio::join!(Node::start(one), Node::start(other));
        eventually(Duration::from_secs(60), "each node has partitions of each topic", async || {
            for node in [&nodes.0, &nodes.1] {
                let metrics = node.metrics().await;
                for topic in [Topic::OrderEvents, Topic::StockEvents, Topic::StockLevels] {
                    let label = format!("topic=\"{}\"", topic.name());
                    let owns =
                        |line: &str| line.starts_with("messaging_take_overs_total") && line.contains(&label);
                    if !metrics.lines().any(owns) {
                        return Err(label);
                    }
                }
            }
            Ok(())
        })
        .await;
        tokio::join!(nodes.0.wait_until_ready(), nodes.1.wait_until_ready());
        nodes
    }

    /// The stock worker's part: a product and its stock.
    pub(crate) async fn level(&self, level: StockLevel) {
        let sku = level.sku.to_string();
        self.publish(Topic::StockLevels, &sku, None, StockLevelMessage::StockLevel(level)).await;
    }

    /// A product that every node can read, with more units than anybody wants.
    pub(crate) async fn product(&self, node: &Node, price: Money) -> Sku {
        let sku = Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap();
        let mut plenty = level(&sku, 1, price);
        (plenty.initial, plenty.granted, plenty.available) = (1_000_000, 1_000_000, 1_000_000);
        plenty.product.limit_per_customer = None;
        self.level(plenty).await;
        eventually(SOON, "the product can be read", async || {
            let status = node.get(&format!("/v1/products/{sku}"), None).await.status();
            if status == StatusCode::OK { Ok(()) } else { Err(status) }
        })
        .await;
        sku
    }

    /// The orchestrator's part.
    pub(crate) async fn event(&self, order: OrderId, event: impl Into<OrderEvent>) {
        self.publish(Topic::OrderEvents, &order.to_string(), Some(order), event.into()).await;
    }

    pub(crate) async fn publish<M: Message>(
        &self,
        topic: Topic,
        key: &str,
        order: Option<OrderId>,
        message: M,
    ) {
        let envelope = Envelope {
            message_id: MessageId(Uuid::now_v7()),
            order_id: order,
            causation_id: None,
            occurred_at: now(),
            message,
        };
        self.publisher.publish(&[Output::new(topic, key, &envelope)]).await.unwrap();
    }

    /// Waits until the projection has applied all that is on a topic now.
    pub(crate) async fn caught_up(&self, topic: Topic) {
        let (brokers, name) = (self.brokers.clone(), topic.name());
        let ends = tokio::task::spawn_blocking(move || {
            let reader = messaging::LogReader::new(&brokers).unwrap();
            let partitions = 0..reader.partitions(name).unwrap();
            partitions
                .map(|partition| (partition, reader.bounds(name, partition).unwrap().1))
                .collect::<Vec<_>>()
        });
        for (partition, end) in ends.await.unwrap() {
            eventually(SOON, "the projection is caught up", async || {
                let next: i64 = sqlx::query_scalar(
                    "SELECT next_offset FROM messaging_position
                     WHERE topic = $1 AND partition_id = $2 AND consumer_group = $3",
                )
                .bind(name)
                .bind(partition)
                .bind(format!("{}-{name}", self.group))
                .fetch_one(&self.pool)
                .await
                .unwrap();
                if next >= end { Ok(()) } else { Err(format!("{name}/{partition}: {next} of {end}")) }
            })
            .await;
        }
    }

    /// Everything on a topic, from its beginning, as it comes.
    pub(crate) fn follow(&self, topic: Topic) -> Log {
        let records = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (seen, stopped, brokers) = (Arc::clone(&records), stop.clone(), self.brokers.clone());
        tokio::spawn(async move {
            messaging::tail(
                &brokers,
                topic.name(),
                TailFrom::Beginning,
                Duration::ZERO,
                stopped,
                move |record| {
                    seen.lock().unwrap().push(record);
                },
            )
            .await
            .unwrap();
        });
        Log { records, _stop: stop.drop_guard() }
    }

    pub(crate) async fn count(&self, sql: &'static str, id: Uuid) -> i64 {
        sqlx::query_scalar(sql).bind(id).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn intake_rows(&self, customer: CustomerId) -> i64 {
        self.count("SELECT count(*) FROM intake WHERE customer_id = $1", customer.uuid()).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.dir);
    }
}

/// What is on a topic.
pub(crate) struct Log {
    pub(crate) records: Arc<Mutex<Vec<Record>>>,
    _stop: DropGuard,
}

impl Log {
    pub(crate) fn of_key(&self, key: &str) -> Vec<Record> {
        let records = self.records.lock().unwrap();
        records.iter().filter(|record| record.key_str() == Some(key)).cloned().collect()
    }

    /// The commands for an order, once there are at least `count`.
    pub(crate) async fn commands(&self, order: OrderId, count: usize) -> Vec<OrderSagaMessage> {
        let key = order.to_string();
        eventually(SOON, "the commands are in the log", async || {
            let records = self.of_key(&key);
            if records.len() < count {
                return Err(format!("{} records", records.len()));
            }
            Ok(records.iter().map(|record| Envelope::decode(&record.value).unwrap().message).collect())
        })
        .await
    }
}

/// A running api.
pub(crate) struct Node {
    pub(crate) addresses: Addresses,
    pub(crate) client: reqwest::Client,
    running: JoinHandle<anyhow::Result<()>>,
    stop: DropGuard,
}

impl Node {
    pub(crate) async fn start(settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel();
        let running = tokio::spawn(run_reporting(settings, stop.clone(), tell));
        let addresses =
            tokio::time::timeout(SOON, told).await.expect("the api starts").expect("the api runs");
        let client = reqwest::Client::new();
        let node = Self { addresses, client, running, stop: stop.drop_guard() };
        node.wait_until_ready().await;
        node
    }

    /// As SIGTERM does.
    pub(crate) async fn shut_down(self) {
        drop(self.stop);
        tokio::time::timeout(SOON, self.running).await.expect("it ends").unwrap().unwrap();
    }

    pub(crate) async fn wait_until_ready(&self) {
        eventually(Duration::from_secs(40), "the api is ready", async || {
            let response = self.get("/readyz", None).await;
            if response.status() == StatusCode::OK {
                return Ok(());
            }
            Err(response.text().await.unwrap())
        })
        .await;
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.addresses.admin);
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: Option<&str>) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.addresses.public));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Response {
        self.request(Method::GET, path, token).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Response {
        self.request(Method::POST, path, Some(token)).json(body).send().await.unwrap()
    }

    /// `POST /v1/orders` with an `Idempotency-Key`.
    pub(crate) async fn order_with_key(&self, token: &str, key: &str, body: &Value) -> Response {
        let request = self.request(Method::POST, "/v1/orders", Some(token));
        request.header("Idempotency-Key", key).json(body).send().await.unwrap()
    }

    /// An accepted order.
    pub(crate) async fn place(&self, token: &str, body: &Value) -> OrderId {
        let response = self.post("/v1/orders", token, body).await;
        let (status, order) = read(response).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{order}");
        id_of(&order)
    }
}

pub(crate) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

pub(crate) fn id_of(order: &Value) -> OrderId {
    order["id"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn won(amount: i64) -> Money {
    Money::new(amount, Currency::KRW)
}

pub(crate) fn new_customer() -> CustomerId {
    CustomerId(Uuid::new_v4())
}

pub(crate) fn development_key(kid: &str, secret: &[u8]) -> Value {
    use base64::Engine as _;
    let secret = base64::engine::general_purpose::STANDARD.encode(secret);
    json!({"kid": kid, "alg": "HS256", "secret": secret, "development": true})
}

pub(crate) fn claims(sub: CustomerId, roles: &[&str], valid_for_s: i64) -> Value {
    let now = now().as_millis() / 1_000;
    json!({"sub": sub, "roles": roles, "iss": "firstcome", "aud": "firstcome-api", "iat": now, "exp": now + valid_for_s})
}

pub(crate) fn sign(kid: Option<&str>, secret: &[u8], claims: &Value) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

pub(crate) fn customer_token(customer: CustomerId) -> String {
    sign(Some("dev"), SECRET, &claims(customer, &["customer"], 600))
}

pub(crate) fn admin_token() -> String {
    sign(Some("dev"), SECRET, &claims(new_customer(), &["admin"], 600))
}

pub(crate) fn product_data(sku: &Sku, price: Money) -> ProductData {
    ProductData {
        name: format!("Product {sku}"),
        option: Some("blue".into()),
        category: "shoes".into(),
        kind: ProductKind::Limited,
        price,
        sale: None,
        limit_per_customer: Some(3),
    }
}

pub(crate) fn level(sku: &Sku, version: i64, price: Money) -> StockLevel {
    StockLevel {
        sku: sku.clone(),
        version,
        product_version: version,
        product: product_data(sku, price),
        initial: 10,
        restocked: 0,
        available: 10,
        held: 0,
        sold: 0,
        granted: 10,
        updated_at: now(),
    }
}

pub(crate) fn one_of(sku: &Sku) -> Value {
    json!({"lines": [{"sku": sku, "quantity": 1}]})
}

/// The saga's first event.
pub(crate) fn placed(customer: CustomerId, at: Timestamp) -> OrderPlaced {
    OrderPlaced {
        version: 2,
        customer_id: customer,
        state: OrderState::Reserving,
        reason: None,
        is_final: false,
        lines: vec![OrderedLine {
            sku: Sku::new("A").unwrap(),
            name: "A".into(),
            option: None,
            unit_price: won(1_000),
            quantity: Quantity::new(2).unwrap(),
            product_version: 1,
            ticket: None,
        }],
        total: won(2_000),
        pay_before: Some(at.plus(Duration::from_secs(900))),
        at,
    }
}

pub(crate) fn changed(version: i64, state: OrderState, at: Timestamp) -> OrderChanged {
    OrderChanged {
        version,
        state,
        reason: None,
        is_final: false,
        payment: None,
        return_before: None,
        request: None,
        stock: Vec::new(),
        at,
    }
}

/// A `GET` of an order, once it has a version.
pub(crate) async fn order_at(node: &Node, token: &str, order: OrderId, version: i64) -> Value {
    eventually(SOON, "the projection has the version", async || {
        let (status, order) = read(node.get(&format!("/v1/orders/{order}"), Some(token)).await).await;
        if status == StatusCode::OK && order["version"].as_i64() >= Some(version) {
            return Ok(order);
        }
        Err(format!("{status} {order}"))
    })
    .await
}

/// Asserts a problem document and returns it.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> Value {
    let headers = response.headers().clone();
    let (found, body) = read(response).await;
    assert_eq!((found.as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(body["status"], status);
    let trace = body["trace_id"].as_str().unwrap();
    assert!(headers["traceresponse"].to_str().unwrap().contains(trace));
    assert!(headers.contains_key("x-request-id"));
    assert!(body["type"].is_string() && body["title"].is_string() && body["detail"].is_string());
    body
}
