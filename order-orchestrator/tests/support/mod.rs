//! An orchestrator on real Kafka and PostgreSQL, participants that answer it, and what tests ask about it.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test programs")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use domain_types::{Currency, CustomerId, MessageId, Money, OrderId, Quantity, Sku, Timestamp};
use local_stack::topics;
use messaging::{LogReader, Output, Publisher, Record};
use order_orchestrator::Settings;
use order_orchestrator::history::{self, HistoryEntry};
use saga::Saga;
use schemas::{
    Envelope, Message, OrderEvent, OrderSagaMessage, OrderState, OrderedLine, PaymentApproved,
    PaymentCommand, PaymentMethod, PaymentRefunded, PlaceOrder, Policy, StockCommand, StockConfirmed,
    StockReleased, StockReserved, StockRestocked, Topic,
};
use sqlx::{PgPool, Row};
use testkit::eventually;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

pub const PARTITIONS: i32 = 2;
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A stack with its topics, the service's database, and a producer.
pub struct World {
    pub brokers: String,
    pub database_url: String,
    pub publisher: Publisher,
}

static WORLD: OnceCell<World> = OnceCell::const_new();
/// There is one consumer group: one test at a time starts orchestrators.
static SERIAL: Mutex<()> = Mutex::const_new(());

/// The world of all tests of a program, and the right to start orchestrators in it.
pub async fn world() -> (&'static World, MutexGuard<'static, ()>) {
    let start = || async {
        let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
        logs.finish().with(service_kit::log_filter("RUST_LOG", "error")).init();
        let stack = testkit::infra().await;
        topics::ensure(&stack.kafka(), PARTITIONS).await.unwrap();
        World {
            brokers: stack.kafka(),
            database_url: testkit::database_in(stack, "orchestrator").await,
            publisher: Publisher::new(&stack.kafka(), "test").unwrap(),
        }
    };
    (WORLD.get_or_init(start).await, SERIAL.lock().await)
}

/// An orchestrator on a thread of its own.
pub struct Orchestrator {
    shutdown: CancellationToken,
    kill: CancellationToken,
    thread: std::thread::JoinHandle<()>,
    pub admin: std::net::SocketAddr,
}

impl Orchestrator {
    /// Ends as after SIGTERM.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }

    /// Ends where it stands: no transaction is ended, nothing more is published.
    pub async fn kill(self) {
        self.kill.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

impl World {
    pub fn start(&self) -> Orchestrator {
        let admin = ([127, 0, 0, 1], local_stack::free_port().unwrap()).into();
        let settings = Settings {
            brokers: self.brokers.clone(),
            kafka_security: Default::default(),
            parked_records: messaging::PARKED_RECORDS,
            database_url: self.database_url.clone(),
            more_database_urls: Vec::new(),
            database_connections: 4,
            admin_listen: admin,
            cached_sagas: 100,
            instance_id: None,
        };
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        let (token, killed) = (shutdown.clone(), kill.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = order_orchestrator::run(settings, token) => ended.unwrap(),
                    () = killed.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Orchestrator { shutdown, kill, thread, admin }
    }

    /// A pool of this test's own runtime.
    pub async fn database(&self) -> PgPool {
        PgPool::connect(&self.database_url).await.unwrap()
    }

    pub async fn send(&self, inputs: &[Envelope<OrderSagaMessage>]) {
        let outputs: Vec<Output> = inputs.iter().map(output).collect();
        self.publisher.publish(&outputs).await.unwrap();
    }

    /// Everything in a topic, partition by partition in the order of the log.
    pub async fn read(&self, topic: Topic) -> Vec<Record> {
        let brokers = self.brokers.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (reader, mut records) = (LogReader::new(&brokers).unwrap(), Vec::new());
            for partition in 0..PARTITIONS {
                let (low, high) = reader.bounds(topic.name(), partition).unwrap();
                reader.read(topic.name(), partition, low, high, |record| records.push(record)).unwrap();
            }
            records
        });
        read.await.unwrap()
    }

    /// The records of a topic about these orders, read as its messages.
    pub async fn about<M: Message>(&self, topic: Topic, orders: &[OrderId]) -> Vec<(Record, Envelope<M>)> {
        let decode = |record: Record| {
            let envelope = Envelope::<M>::decode(&record.value).ok()?;
            orders.contains(&envelope.order_id?).then_some((record, envelope))
        };
        self.read(topic).await.into_iter().filter_map(decode).collect()
    }

    /// The first record about an order of that message type, once it is there.
    pub async fn first<M: Message>(
        &self,
        topic: Topic,
        order_id: OrderId,
        wanted: &str,
    ) -> (Record, Envelope<M>) {
        eventually(DEADLINE, wanted, async || {
            let found = self.about::<M>(topic, &[order_id]).await;
            let types: Vec<_> = found.iter().map(|(_, envelope)| envelope.message.type_name()).collect();
            let first = found.into_iter().find(|(_, envelope)| envelope.message.type_name() == wanted);
            first.ok_or_else(|| format!("{types:?}"))
        })
        .await
    }

    /// Waits until every order's events lead to this state; returns the state's version by order.
    pub async fn reached(&self, orders: &[OrderId], state: OrderState) {
        eventually(Duration::from_secs(90), state.as_str(), async || {
            let mut latest = BTreeMap::new();
            for (_, envelope) in self.about::<OrderEvent>(Topic::OrderEvents, orders).await {
                let (version, state) = match &envelope.message {
                    OrderEvent::OrderPlaced(placed) => (placed.version, placed.state),
                    OrderEvent::OrderChanged(changed) => (changed.version, changed.state),
                };
                let entry = latest.entry(envelope.order_id).or_insert((version, state));
                if version > entry.0 {
                    *entry = (version, state);
                }
            }
            let there = latest.values().filter(|(_, reached)| *reached == state).count();
            if there == orders.len() { Ok(()) } else { Err(format!("{there} of {}", orders.len())) }
        })
        .await;
    }

    /// The stored saga and the rows that its journal names, decoded, once the row holds all of its order's history.
    pub async fn stored(&self, order_id: OrderId) -> (Saga, Vec<HistoryEntry>) {
        let pool = self.database().await;
        eventually(DEADLINE, "the saga is saved", async || {
            let row = sqlx::query(
                "SELECT partition_id, state, journal, version, seq FROM sagas WHERE order_id = $1",
            )
            .bind(order_id.uuid())
            .fetch_optional(&pool)
            .await
            .unwrap()
            .ok_or("no row")?;
            let history: Vec<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT seq, body FROM saga_history WHERE partition_id = $1 ORDER BY seq")
                    .bind(row.get::<i32, _>("partition_id"))
                    .fetch_all(&pool)
                    .await
                    .unwrap();
            let (mut journal, mut entries) = (Vec::new(), Vec::new());
            for (seq, body) in history {
                let of_order = history::decode(&body).unwrap();
                let of_order = of_order.into_iter().filter(|entry| entry.order_id == order_id);
                let before = entries.len();
                entries.extend(of_order);
                if entries.len() > before {
                    journal.push(seq);
                }
            }
            if journal.last() > Some(&row.get::<i64, _>("seq")) {
                return Err(format!("history is ahead: {journal:?}"));
            }
            let saga: Saga = serde_json::from_str(row.get("state")).unwrap();
            assert_eq!(saga.version, row.get::<i64, _>("version"));
            assert_eq!(row.get::<Vec<i64>, _>("journal"), journal, "the journal names the order's history");
            Ok((saga, entries))
        })
        .await
    }

    /// The history of an order alone tells its state.
    pub async fn history_tells_the_state(&self, order_id: OrderId) -> Vec<HistoryEntry> {
        let (saga, entries) = self.stored(order_id).await;
        let told = entries.iter().fold(None, |saga, entry| entry.fold(saga));
        assert_eq!(told, Some(saga));
        entries
    }

    /// Answers every command in both topics, repeats too, until `stop`.
    pub async fn participants(&self, stop: CancellationToken) {
        let (sender, mut replies) = tokio::sync::mpsc::unbounded_channel();
        for topic in [Topic::StockCommands, Topic::PaymentCommands] {
            let (brokers, stop, sender) = (self.brokers.clone(), stop.clone(), sender.clone());
            tokio::spawn(async move {
                let each = move |record: Record| {
                    if let Some(reply) = reply_to(topic, &record) {
                        let _gone = sender.send(output(&reply));
                    }
                };
                messaging::tail(
                    &brokers,
                    topic.name(),
                    messaging::TailFrom::Beginning,
                    Duration::ZERO,
                    stop,
                    each,
                )
                .await
                .unwrap();
            });
        }
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            let mut ready = Vec::new();
            while replies.recv_many(&mut ready, 500).await > 0 {
                publisher.publish(&ready).await.unwrap();
                ready.clear();
            }
        });
    }
}

fn reply_to(topic: Topic, record: &Record) -> Option<Envelope<OrderSagaMessage>> {
    let (stock_version, units) = (7, 1);
    if topic == Topic::StockCommands {
        let command = Envelope::<StockCommand>::decode(&record.value).ok()?;
        let message = match command.message {
            StockCommand::ReserveStock(c) => {
                StockReserved { line: c.line, attempt: c.attempt, stock_version }.into()
            }
            StockCommand::ConfirmStock(c) => {
                StockConfirmed { line: c.line, attempt: c.attempt, stock_version }.into()
            }
            StockCommand::ReleaseStock(c) => {
                StockReleased { line: c.line, attempt: c.attempt, units, stock_version }.into()
            }
            StockCommand::RestockStock(c) => {
                StockRestocked { line: c.line, attempt: c.attempt, units, stock_version }.into()
            }
            StockCommand::DefineProduct(_) | StockCommand::ChangeStock(_) => return None,
        };
        return Some(answer(command.message_id, command.order_id?, message));
    }
    let command = Envelope::<PaymentCommand>::decode(&record.value).ok()?;
    let reference = "provider".to_owned();
    let message = match command.message {
        PaymentCommand::ChargePayment(c) => {
            PaymentApproved { attempt: c.attempt, amount: c.amount, reference }.into()
        }
        PaymentCommand::ClosePayment(c) => schemas::PaymentClosed { attempt: c.attempt }.into(),
        PaymentCommand::RefundPayment(c) => {
            PaymentRefunded { attempt: c.attempt, amount: c.amount, reference }.into()
        }
    };
    Some(answer(command.message_id, command.order_id?, message))
}

fn answer(cause: MessageId, order_id: OrderId, message: OrderSagaMessage) -> Envelope<OrderSagaMessage> {
    Envelope { message_id: MessageId::caused_by(cause, 0), ..input(order_id, message) }
}

/// The record that the api or a worker would write.
pub fn output(input: &Envelope<OrderSagaMessage>) -> Output {
    let key = input.order_id.map(|order| order.to_string()).unwrap_or_default();
    Output::new(Topic::OrderSaga, key, input).traceparent(Some(TRACE))
}

pub fn input(order_id: OrderId, message: impl Into<OrderSagaMessage>) -> Envelope<OrderSagaMessage> {
    Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id: Some(order_id),
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: message.into(),
    }
}

pub fn fresh_order() -> OrderId {
    OrderId(Uuid::new_v4())
}

pub fn fresh_orders(count: usize) -> Vec<OrderId> {
    (0..count).map(|_| fresh_order()).collect()
}

/// An order of one unit of each of these skus.
pub fn place(skus: &[&str], method: Option<&str>) -> PlaceOrder {
    let line = |sku: &&str| OrderedLine {
        sku: Sku::new(*sku).unwrap(),
        name: "Shoe".into(),
        option: None,
        unit_price: Money::new(1_000, Currency::KRW),
        quantity: Quantity::new(1).unwrap(),
        product_version: 1,
        ticket: None,
    };
    PlaceOrder {
        customer_id: CustomerId(Uuid::new_v4()),
        lines: skus.iter().map(line).collect(),
        payment_method: method.map(|method| PaymentMethod(method.into())),
        fingerprint: "fingerprint".into(),
        publish_before: Timestamp::from_millis(4_102_444_800_000),
        policy: None,
        definition: 1,
    }
}

pub fn pay_within(millis: u64) -> Option<Policy> {
    Some(Policy { pay_within_ms: millis, ..Policy::default() })
}
