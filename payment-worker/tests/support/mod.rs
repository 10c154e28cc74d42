//! A payment worker on real Kafka and PostgreSQL, and what tests ask about it.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test programs")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use domain_types::{Attempt, Currency, CustomerId, MessageId, Money, OrderId, Timestamp};
use local_stack::{Stack, topics};
use messaging::{LogReader, Output, Publisher, Record};
use payment_domain::{Movement, MovementKind};
use schemas::{
    ChargePayment, ClosePayment, Envelope, OrderSagaMessage, PaymentCommand, PaymentMethod, RefundPayment,
    Topic,
};
use sqlx::PgPool;
use testkit::eventually;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PARTITIONS: i32 = 2;
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const AMOUNT: Money = Money::new(129_000, Currency::KRW);

/// A stack with its topics, the worker's database, and a producer.
pub struct World {
    pub brokers: String,
    pub database_url: String,
    pub publisher: Publisher,
}

impl World {
    pub async fn on(stack: &Stack) -> Self {
        topics::ensure(&stack.kafka(), PARTITIONS).await.unwrap();
        Self {
            brokers: stack.kafka(),
            database_url: testkit::database_in(stack, "payment").await,
            publisher: Publisher::new(&stack.kafka(), "test").unwrap(),
        }
    }

    /// A worker in this process, on a thread and a runtime of its own, until the process ends.
    pub fn start_here(&self, admin_port: u16) {
        let settings = format!(
            "brokers = {:?}\ndatabase_url = {:?}\nadmin_listen = \"127.0.0.1:{admin_port}\"\n",
            self.brokers, self.database_url
        );
        let settings: payment_worker::Settings = toml::from_str(&settings).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(payment_worker::run(settings, CancellationToken::new())).unwrap();
        });
    }

    /// The binary, which a test may kill. A restarted one is the same member of the group.
    pub fn start_process(&self, settings: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payment-worker"));
        command
            .env("PAYMENT_WORKER__BROKERS", &self.brokers)
            .env("PAYMENT_WORKER__DATABASE_URL", &self.database_url)
            .env("PAYMENT_WORKER__ADMIN_LISTEN", "127.0.0.1:0")
            .env("PAYMENT_WORKER__INSTANCE_ID", "one")
            .envs(settings.iter().copied())
            .stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// A pool of this test's own runtime.
    pub async fn database(&self) -> PgPool {
        PgPool::connect(&self.database_url).await.unwrap()
    }

    pub async fn send(&self, commands: &[Envelope<PaymentCommand>]) {
        let outputs: Vec<Output> = commands.iter().map(output).collect();
        self.publisher.publish(&outputs).await.unwrap();
    }

    /// Every reply in the log, partition by partition in its order.
    pub async fn all_replies(&self) -> Vec<Envelope<OrderSagaMessage>> {
        let brokers = self.brokers.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (reader, mut records) = (LogReader::new(&brokers).unwrap(), Vec::<Record>::new());
            for partition in 0..PARTITIONS {
                let topic = Topic::OrderSaga.name();
                let (low, high) = reader.bounds(topic, partition).unwrap();
                reader.read(topic, partition, low, high, |record| records.push(record)).unwrap();
            }
            records
        });
        let records = read.await.unwrap();
        records
            .iter()
            .map(|record| {
                let reply = Envelope::<OrderSagaMessage>::decode(&record.value).unwrap();
                assert_eq!(record.key_str(), reply.order_id.map(|order| order.to_string()).as_deref());
                reply
            })
            .collect()
    }

    /// The replies to an order, once there are `count` of them.
    pub async fn replies(&self, order: &Order, count: usize) -> Vec<Envelope<OrderSagaMessage>> {
        eventually(DEADLINE, "replies", async || {
            let mut replies = self.all_replies().await;
            replies.retain(|reply| reply.order_id == Some(order.id));
            assert!(replies.len() <= count, "{count} replies expected: {replies:?}");
            if replies.len() == count { Ok(replies) } else { Err(format!("{replies:?}")) }
        })
        .await
    }

    /// All replies to an order, once there is one that `is_last`.
    pub async fn replies_until(
        &self,
        order: &Order,
        is_last: impl Fn(&OrderSagaMessage) -> bool,
    ) -> Vec<Envelope<OrderSagaMessage>> {
        eventually(DEADLINE, "the last reply", async || {
            let mut replies = self.all_replies().await;
            replies.retain(|reply| reply.order_id == Some(order.id));
            if replies.iter().any(|reply| is_last(&reply.message)) {
                Ok(replies)
            } else {
                Err(format!("{replies:?}"))
            }
        })
        .await
    }

    pub async fn messages(&self, order: &Order, count: usize) -> Vec<OrderSagaMessage> {
        self.replies(order, count).await.into_iter().map(|reply| reply.message).collect()
    }

    pub async fn message(&self, order: &Order) -> OrderSagaMessage {
        self.messages(order, 1).await.remove(0)
    }

    /// State of the worker's charge.
    pub async fn state(&self, order: &Order) -> Option<String> {
        let query = sqlx::query_scalar("SELECT state FROM charges WHERE order_id = $1");
        query.bind(order.id.uuid()).fetch_optional(&self.database().await).await.unwrap()
    }

    /// What the provider has about an order: outcome and money given back, per key.
    pub async fn book(&self, order: &Order) -> Vec<(String, i64)> {
        let query = sqlx::query_as("SELECT outcome, refunded FROM simulated_charges WHERE order_id = $1");
        query.bind(order.id.uuid()).fetch_all(&self.database().await).await.unwrap()
    }

    /// The ledger.
    pub async fn movements(&self) -> Vec<Movement> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT entries FROM money_movements ORDER BY partition_id, epoch, seq")
                .fetch_all(&self.database().await)
                .await
                .unwrap();
        rows.iter().flat_map(|row| serde_json::from_str::<Vec<Movement>>(row).unwrap()).collect()
    }

    pub async fn movements_of(&self, order: &Order) -> Vec<MovementKind> {
        let movements = self.movements().await.into_iter();
        movements.filter(|movement| movement.order_id == order.id).map(|movement| movement.kind).collect()
    }
}

/// A worker's process; killed when dropped.
pub struct Process(pub Child);

impl Process {
    /// `kill -9`.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An order and its customer.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub id: OrderId,
    pub customer: CustomerId,
}

impl Order {
    pub fn new() -> Self {
        Self { id: OrderId(Uuid::new_v4()), customer: CustomerId(Uuid::new_v4()) }
    }

    pub fn charge(&self, method: &str, attempt: u32) -> Envelope<PaymentCommand> {
        let (customer_id, attempt) = (self.customer, Attempt(attempt));
        let method = PaymentMethod(method.to_owned());
        let deadline = Timestamp::from_millis(0);
        self.command(ChargePayment { customer_id, attempt, amount: AMOUNT, method, deadline }.into())
    }

    pub fn close(&self, attempt: u32) -> Envelope<PaymentCommand> {
        self.command(ClosePayment { customer_id: self.customer, attempt: Attempt(attempt) }.into())
    }

    pub fn refund(&self, attempt: u32) -> Envelope<PaymentCommand> {
        let attempt = Attempt(attempt);
        self.command(RefundPayment { customer_id: self.customer, attempt, amount: AMOUNT }.into())
    }

    fn command(&self, message: PaymentCommand) -> Envelope<PaymentCommand> {
        Envelope {
            message_id: MessageId(Uuid::new_v4()),
            order_id: Some(self.id),
            causation_id: None,
            occurred_at: Timestamp::from_millis(0),
            message,
        }
    }
}

fn output(command: &Envelope<PaymentCommand>) -> Output {
    let customer_id = match &command.message {
        PaymentCommand::ChargePayment(command) => command.customer_id,
        PaymentCommand::ClosePayment(command) => command.customer_id,
        PaymentCommand::RefundPayment(command) => command.customer_id,
    };
    Output::new(Topic::PaymentCommands, customer_id.to_string(), command)
        .parking_key(command.order_id.unwrap())
}
