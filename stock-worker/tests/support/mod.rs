//! A stock worker on real Kafka and PostgreSQL, and what tests ask about it.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test programs")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain_types::{
    Attempt, Currency, CustomerId, LineNumber, MessageId, Money, OrderId, Quantity, RequestId, Sku, Timestamp,
};
use local_stack::{Stack, topics};
use messaging::{Output, Publisher, Record, TailFrom};
use schemas::{
    ChangeStock, ConfirmStock, DefineProduct, Envelope, Message, OrderSagaMessage, ProductData, ProductKind,
    ReleaseStock, ReserveStock, RestockStock, StockCommand, StockEvent, StockLevel, StockLevelMessage, Topic,
};
use serde::Deserialize;
use sqlx::PgPool;
use stock_domain::{Entry, Item};
use stock_worker::Settings;
use testkit::eventually;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PARTITIONS: i32 = 2;
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const LINE: LineNumber = LineNumber(0);

/// A stack with its topics, the worker's database, and a producer.
pub struct World {
    pub brokers: String,
    pub database_url: String,
    pub publisher: Publisher,
    seen: Arc<Mutex<HashMap<Topic, Vec<Record>>>>,
}

/// A worker on a thread of its own: tests have a runtime each, and it outlives them.
pub struct Worker {
    shutdown: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

static WORLD: OnceCell<World> = OnceCell::const_new();

/// The world of all tests of a program, with one worker. Tests keep apart by their own skus and orders.
pub async fn world() -> &'static World {
    let start = || async {
        let world = World::on(testkit::infra().await).await;
        world.start();
        world
    };
    WORLD.get_or_init(start).await
}

impl World {
    pub async fn on(stack: &Stack) -> Self {
        topics::ensure(&stack.kafka(), PARTITIONS).await.unwrap();
        let database_url = testkit::database_in(stack, "stock").await;
        let world = Self {
            brokers: stack.kafka(),
            publisher: Publisher::new(&stack.kafka(), "test").unwrap(),
            database_url,
            seen: Arc::default(),
        };
        for topic in [Topic::OrderSaga, Topic::StockEvents, Topic::StockLevels, Topic::DeadLetters] {
            world.follow(topic);
        }
        world
    }

    pub fn start(&self) -> Worker {
        let settings = Settings {
            brokers: self.brokers.clone(),
            kafka_security: Default::default(),
            parked_records: messaging::PARKED_RECORDS,
            database_url: self.database_url.clone(),
            more_database_urls: Vec::new(),
            database_connections: 4,
            admin_listen: ([127, 0, 0, 1], 0).into(),
            instance_id: None,
        };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(stock_worker::run(settings, token)).unwrap();
        });
        Worker { shutdown, thread }
    }

    /// A pool of this test's own runtime.
    pub async fn database(&self) -> PgPool {
        PgPool::connect(&self.database_url).await.unwrap()
    }

    pub async fn publish(&self, outputs: &[Output]) {
        self.publisher.publish(outputs).await.unwrap();
    }

    pub async fn send(&self, commands: &[Envelope<StockCommand>]) {
        let outputs: Vec<Output> = commands.iter().map(output).collect();
        self.publish(&outputs).await;
    }

    /// What has been seen of a topic, each partition in the order of the log.
    pub fn read(&self, topic: Topic) -> Vec<Record> {
        self.seen.lock().unwrap().get(&topic).cloned().unwrap_or_default()
    }

    /// Follows a topic until the program ends.
    fn follow(&self, topic: Topic) {
        let (brokers, seen) = (self.brokers.clone(), Arc::clone(&self.seen));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let each = move |record| seen.lock().unwrap().entry(topic).or_default().push(record);
            let tail = messaging::tail(
                &brokers,
                topic.name(),
                TailFrom::Beginning,
                Duration::ZERO,
                CancellationToken::new(),
                each,
            );
            runtime.block_on(tail).unwrap();
        });
    }

    /// The replies to these orders, once there are `count` of them.
    pub async fn replies(&self, orders: &[OrderId], count: usize) -> Vec<Envelope<OrderSagaMessage>> {
        eventually(DEADLINE, "replies", async || {
            let records = self.read(Topic::OrderSaga);
            let replies = records.iter().map(|record| {
                let reply = Envelope::<OrderSagaMessage>::decode(&record.value).unwrap();
                assert_eq!(record.key_str(), reply.order_id.map(|order| order.to_string()).as_deref());
                reply
            });
            let replies: Vec<_> = replies.filter(|reply| orders.contains(&reply.order_id.unwrap())).collect();
            assert!(replies.len() <= count, "{} replies, {count} expected", replies.len());
            if replies.len() == count { Ok(replies) } else { Err(format!("{} replies", replies.len())) }
        })
        .await
    }

    /// The answers about a product, once there are `count` of them.
    pub async fn answers(&self, sku: &Sku, count: usize) -> Vec<StockEvent> {
        eventually(DEADLINE, "answers", async || {
            let records = self.read(Topic::StockEvents);
            let of_sku = records.iter().filter(|record| record.key_str() == Some(sku.as_str()));
            let answers: Vec<StockEvent> =
                of_sku.map(|record| Envelope::decode(&record.value).unwrap().message).collect();
            if answers.len() == count { Ok(answers) } else { Err(format!("{answers:?}")) }
        })
        .await
    }

    /// The levels of a product in the topic that can be read, oldest first.
    pub fn levels(&self, sku: &Sku) -> Vec<StockLevel> {
        let records = self.read(Topic::StockLevels);
        let of_sku = records.iter().filter(|record| record.key_str() == Some(sku.as_str()));
        let readable = of_sku.filter_map(|record| Envelope::decode(&record.value).ok());
        readable
            .map(|level| {
                let StockLevelMessage::StockLevel(level) = level.message;
                level
            })
            .collect()
    }

    /// Waits until the last level of a product in the topic has this version.
    pub async fn last_level(&self, sku: &Sku, version: i64) -> StockLevel {
        eventually(DEADLINE, "the last level is the present one", async || {
            let last = self.levels(sku).pop();
            last.clone().filter(|level| level.version == version).ok_or_else(|| format!("{last:?}"))
        })
        .await
    }

    /// The same, once there are that many levels.
    pub async fn last_level_after(&self, sku: &Sku, version: i64, count: usize) -> StockLevel {
        eventually(DEADLINE, "levels", async || {
            let levels = self.levels(sku).len();
            if levels >= count { Ok(()) } else { Err(format!("{levels} levels")) }
        })
        .await;
        self.last_level(sku, version).await
    }

    /// Waits until nothing is left that a successor would publish once more.
    pub async fn outbox_is_empty(&self) {
        let pool = self.database().await;
        eventually(DEADLINE, "the outbox is empty", async || {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messaging_outbox")
                .fetch_one(&pool)
                .await
                .map_err(|error| error.to_string())?;
            if rows == 0 { Ok(()) } else { Err(format!("{rows} rows")) }
        })
        .await;
    }

    /// Registers a product with a name of its own and waits for the answer.
    pub async fn product(&self, initial: u32, product: ProductData) -> Sku {
        let sku = fresh_sku();
        self.send(&[define(&sku, initial, product)]).await;
        self.answers(&sku, 1).await;
        sku
    }
}

impl Worker {
    /// Ends as after SIGTERM.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

/// `[initial, restocked, available, held, sold, granted, version]` as the database has them.
pub async fn counts(pool: &PgPool, sku: &Sku) -> [i64; 7] {
    let row: (i64, i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT initial, restocked, available, held, sold, granted, version FROM items WHERE sku = $1",
    )
    .bind(sku.as_str())
    .fetch_one(pool)
    .await
    .unwrap();
    row.into()
}

/// All that the database has about a product, as text.
pub async fn everything(pool: &PgPool, sku: &Sku) -> Vec<String> {
    let mut all = Vec::new();
    for query in [
        "SELECT t::text FROM items AS t WHERE sku = $1",
        "SELECT t::text FROM products AS t WHERE sku = $1",
        "SELECT t::text FROM holds AS t WHERE sku = $1 ORDER BY order_id, line",
        "SELECT e::text FROM ledger_batches, json_array_elements(entries::json) WITH ORDINALITY AS x (e, n)
          WHERE e->>'sku' = $1 ORDER BY epoch, seq, n",
        "SELECT t::text FROM changes AS t WHERE sku = $1 ORDER BY request_id",
    ] {
        let rows: Vec<String> = sqlx::query_scalar(query).bind(sku.as_str()).fetch_all(pool).await.unwrap();
        all.extend(rows);
    }
    all
}

/// An entry, as the ledger has it.
#[derive(Deserialize)]
struct Stored {
    sku: Sku,
    version: i64,
    #[serde(flatten)]
    entry: Entry,
}

/// The item as its ledger tells it.
pub async fn folded_ledger(pool: &PgPool, sku: &Sku) -> Item {
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT entries FROM ledger_batches ORDER BY partition_id, epoch, seq")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut item: Option<Item> = None;
    for row in rows {
        let entries: Vec<Stored> = serde_json::from_str(&row).unwrap();
        for Stored { version, entry, .. } in entries.into_iter().filter(|stored| stored.sku == *sku) {
            assert_eq!(version, item.as_ref().map_or(0, |item| item.version) + 1);
            item = Some(Item::evolve(item, sku, &entry).unwrap());
        }
    }
    item.unwrap()
}

pub fn fresh_sku() -> Sku {
    Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap()
}

pub fn fresh_orders(count: usize) -> Vec<OrderId> {
    (0..count).map(|_| OrderId(Uuid::new_v4())).collect()
}

pub fn fresh_customer() -> CustomerId {
    CustomerId(Uuid::new_v4())
}

pub fn product() -> ProductData {
    ProductData {
        name: "Shoe".into(),
        option: None,
        category: "shoes".into(),
        kind: ProductKind::Limited,
        price: Money::new(129_000, Currency::KRW),
        sale: None,
        limit_per_customer: None,
    }
}

fn envelope(order_id: Option<OrderId>, message: impl Into<StockCommand>) -> Envelope<StockCommand> {
    Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id,
        causation_id: None,
        occurred_at: Timestamp::from_millis(1_795_237_200_000),
        message: message.into(),
    }
}

pub fn define(sku: &Sku, initial: u32, product: ProductData) -> Envelope<StockCommand> {
    let request_id = RequestId(Uuid::new_v4());
    envelope(None, DefineProduct { request_id, sku: sku.clone(), product, initial_stock: Some(initial) })
}

pub fn change(sku: &Sku, quantity: i64) -> Envelope<StockCommand> {
    let request_id = RequestId(Uuid::new_v4());
    envelope(None, ChangeStock { request_id, sku: sku.clone(), quantity, reason: "delivery".into() })
}

pub fn reserve(order: OrderId, sku: &Sku, units: u32, customer_id: CustomerId) -> Envelope<StockCommand> {
    let command = ReserveStock {
        line: LINE,
        attempt: Attempt::FIRST,
        sku: sku.clone(),
        quantity: Quantity::new(units).unwrap(),
        customer_id,
        ordered_at: Timestamp::from_millis(1_795_237_200_000),
    };
    envelope(Some(order), command)
}

pub fn confirm(order: OrderId, sku: &Sku) -> Envelope<StockCommand> {
    envelope(
        Some(order),
        ConfirmStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone(), silent: false },
    )
}

pub fn release(order: OrderId, sku: &Sku) -> Envelope<StockCommand> {
    envelope(Some(order), ReleaseStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone() })
}

pub fn restock(order: OrderId, sku: &Sku) -> Envelope<StockCommand> {
    envelope(Some(order), RestockStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone() })
}

pub fn sku_of(command: &StockCommand) -> &Sku {
    match command {
        StockCommand::ReserveStock(command) => &command.sku,
        StockCommand::ConfirmStock(command) => &command.sku,
        StockCommand::ReleaseStock(command) => &command.sku,
        StockCommand::RestockStock(command) => &command.sku,
        StockCommand::DefineProduct(command) => &command.sku,
        StockCommand::ChangeStock(command) => &command.sku,
    }
}

/// The record that the orchestrator or the api would write.
pub fn output(command: &Envelope<StockCommand>) -> Output {
    let output = Output::new(Topic::StockCommands, sku_of(&command.message).as_str(), command);
    match (&command.message, command.order_id) {
        (_, Some(order)) => output.parking_key(order),
        (StockCommand::DefineProduct(define), None) => output.parking_key(define.request_id),
        (StockCommand::ChangeStock(change), None) => output.parking_key(change.request_id),
        (_, None) => output,
    }
}

/// How many replies of each type there are.
pub fn by_type(replies: &[Envelope<OrderSagaMessage>]) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    for reply in replies {
        *counts.entry(reply.message.type_name()).or_insert(0) += 1;
    }
    counts
}
