//! A service small enough to see through: adds numbers per key, and echoes each sum.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a module of each test file"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain_types::Timestamp;
use messaging::{
    ConsumerConfig, Databases, Handler, HandlerError, HandlerFactory, Metrics, Output, Outputs, Ownership,
    Publisher, Received, Record, RunError, Status, Tx,
};
use schemas::DecodeError;
use serde::Deserialize;
use sqlx::{PgPool, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const LONG: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Deserialize)]
pub struct Add {
    pub add: i64,
    #[serde(default)]
    pub fail: Option<String>,
    #[serde(default)]
    pub version: u16,
}

/// Adds; records with `fail` are refused until `mended` is set.
pub struct Adder {
    ownership: Ownership,
    out_topic: String,
    mended: Arc<AtomicBool>,
    knows_version: u16,
    asked_to_work: bool,
}

#[derive(Clone)]
pub struct AdderFactory {
    pub out_topic: String,
    pub mended: Arc<AtomicBool>,
    pub knows_version: u16,
}

impl HandlerFactory for AdderFactory {
    type Handler = Adder;

    async fn take_over(&self, ownership: Ownership) -> Result<Adder, HandlerError> {
        Ok(Adder {
            ownership,
            out_topic: self.out_topic.clone(),
            mended: Arc::clone(&self.mended),
            knows_version: self.knows_version,
            asked_to_work: false,
        })
    }
}

impl Handler for Adder {
    type Input = (String, Add);

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        let add: Add = serde_json::from_slice(&record.value)
            .map_err(|source| DecodeError::Malformed { message_type: "Add".into(), source })?;
        if add.version > self.knows_version {
            return Err(DecodeError::Unknown { message_type: "Add".into(), version: add.version });
        }
        Ok((record.key_str().unwrap_or_default().to_owned(), add))
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        for Received { record, input: (key, add) } in batch {
            match add.fail.as_deref() {
                Some("panic") if !self.mended.load(Ordering::SeqCst) => panic!("asked to"),
                Some("permanent") if !self.mended.load(Ordering::SeqCst) => {
                    return Err(HandlerError::permanent("asked to"));
                }
                Some("work") => {
                    self.asked_to_work = true;
                    self.ownership.waker.wake();
                }
                _ => {}
            }
            let sum: i64 = sqlx::query(
                "INSERT INTO sums (partition_id, key, total, records, offsets) VALUES ($1, $2, $3, 1, ARRAY[$4])
                 ON CONFLICT (partition_id, key) DO UPDATE SET total = sums.total + excluded.total,
                     records = sums.records + 1, offsets = sums.offsets || excluded.offsets
                 RETURNING total",
            )
            .bind(self.ownership.partition)
            .bind(key)
            .bind(add.add)
            .bind(record.offset.0)
            .fetch_one(tx.writer().await?)
            .await?
            .try_get("total")?;
            outputs.push(Output::raw(self.out_topic.clone(), key.clone(), format!("{sum}").into_bytes()));
        }
        Ok(())
    }

    async fn work(
        &mut self,
        tx: &mut Tx,
        _now: Timestamp,
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        if std::mem::take(&mut self.asked_to_work) {
            sqlx::query("INSERT INTO worked (epoch) VALUES ($1)")
                .bind(self.ownership.epoch)
                .execute(tx.writer().await?)
                .await?;
            outputs.push(Output::raw(self.out_topic.clone(), "worked", b"worked".to_vec()));
        }
        Ok(())
    }
}

/// Topics and a database of one test.
pub struct World {
    pub brokers: String,
    pub topic: String,
    pub out_topic: String,
    pub dead_letters: String,
    pub pool: PgPool,
    pub publisher: Publisher,
    pub mended: Arc<AtomicBool>,
}

pub struct Running {
    pub status: Status,
    pub registry: prometheus::Registry,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// The sum of a counter or gauge over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric())
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

impl World {
    pub async fn new(name: &str, partitions: i32) -> Self {
        Self::within(testkit::infra().await, name, partitions).await
    }

    pub async fn within(stack: &local_stack::Stack, name: &str, partitions: i32) -> Self {
        let pool = PgPool::connect(&testkit::database_in(stack, name).await).await.unwrap();
        Self::make_tables(&pool).await;
        let brokers = stack.kafka();
        Self {
            topic: testkit::create_topic_in(stack, name, partitions, false).await,
            out_topic: testkit::create_topic_in(stack, &format!("{name}-out"), 1, false).await,
            dead_letters: testkit::create_topic_in(stack, &format!("{name}-dead"), 1, false).await,
            publisher: Publisher::new(&brokers, name).unwrap(),
            brokers,
            pool,
            mended: Arc::default(),
        }
    }

    /// The runtime's tables and the adder's.
    pub async fn make_tables(pool: &PgPool) {
        messaging::migrate(pool).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS sums (partition_id int, key text, total bigint, records bigint, offsets bigint[],
                                              PRIMARY KEY (partition_id, key));
             CREATE TABLE IF NOT EXISTS worked (epoch bigint);",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    pub fn factory(&self) -> AdderFactory {
        AdderFactory { out_topic: self.out_topic.clone(), mended: Arc::clone(&self.mended), knows_version: 1 }
    }

    pub fn start(&self) -> Running {
        self.start_with(self.factory(), self.publisher.clone())
    }

    pub fn start_with(&self, factory: AdderFactory, publisher: Publisher) -> Running {
        self.start_on(self.pool.clone().into(), factory, publisher)
    }

    pub fn start_on(&self, databases: Databases, factory: AdderFactory, publisher: Publisher) -> Running {
        self.start_member(None, databases, factory, publisher)
    }

    /// A static member of the group.
    pub fn start_as(&self, instance_id: &str) -> Running {
        let instance_id = Some(instance_id.to_owned());
        self.start_member(instance_id, self.pool.clone().into(), self.factory(), self.publisher.clone())
    }

    fn start_member(
        &self,
        instance_id: Option<String>,
        databases: Databases,
        factory: AdderFactory,
        publisher: Publisher,
    ) -> Running {
        let mut config = ConsumerConfig::new(&self.brokers, "adders", &self.topic, databases);
        config.instance_id = instance_id;
        config.dead_letters.clone_from(&self.dead_letters);
        config.limits.drain = Duration::from_secs(1);
        let (status, shutdown) = (Status::default(), CancellationToken::new());
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let task = tokio::spawn(messaging::run(
            config,
            factory,
            publisher,
            metrics,
            status.clone(),
            shutdown.clone(),
        ));
        Running { status, registry, shutdown, task }
    }

    pub async fn send(&self, records: impl IntoIterator<Item = (String, String)>) {
        let outputs: Vec<Output> = records
            .into_iter()
            .map(|(key, value)| Output::raw(self.topic.clone(), key, value.into_bytes()))
            .collect();
        self.publisher.publish(&outputs).await.unwrap();
    }

    /// `(total, records)` over all keys.
    pub async fn sums(&self) -> (i64, i64) {
        let row = sqlx::query(
            "SELECT coalesce(sum(total), 0)::bigint AS total, coalesce(sum(records), 0)::bigint AS records FROM sums",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        (row.get("total"), row.get("records"))
    }

    pub async fn records_of(&self, key: &str) -> i64 {
        let row = sqlx::query("SELECT records FROM sums WHERE key = $1").bind(key);
        row.fetch_optional(&self.pool).await.unwrap().map_or(0, |row| row.get("records"))
    }

    pub async fn until_records(&self, wanted: i64) {
        testkit::eventually(LONG, &format!("{wanted} records are applied"), async || {
            let (_, records) = self.sums().await;
            if records == wanted { Ok(()) } else { Err(format!("{records} are")) }
        })
        .await;
    }

    pub async fn until_parked(&self, wanted: i64) {
        testkit::eventually(LONG, &format!("{wanted} records are parked"), async || {
            let parked = self.count("messaging_parked").await;
            if parked == wanted { Ok(()) } else { Err(format!("{parked} are")) }
        })
        .await;
    }

    pub async fn count(&self, table: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) AS rows FROM {table}"));
        sqlx::query(query).fetch_one(&self.pool).await.unwrap().get("rows")
    }

    /// Everything in a topic.
    pub async fn read(&self, topic: &str) -> Vec<Record> {
        let (brokers, topic) = (self.brokers.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let reader = messaging::LogReader::new(&brokers).unwrap();
            let mut records = Vec::new();
            for partition in 0..reader.partitions(&topic).unwrap() {
                let (low, high) = reader.bounds(&topic, partition).unwrap();
                reader.read(&topic, partition, low, high, |record| records.push(record)).unwrap();
            }
            records
        })
        .await
        .unwrap()
    }

    pub async fn until_output(&self, wanted: usize) -> Vec<Record> {
        testkit::eventually(LONG, &format!("{wanted} outputs are published"), async || {
            let outputs = self.read(&self.out_topic).await;
            if outputs.len() >= wanted { Ok(outputs) } else { Err(format!("{} are", outputs.len())) }
        })
        .await
    }

    /// A control record for a parked key.
    pub async fn control(&self, key: &str, message: schemas::ControlMessage) {
        let kind = schemas::Message::type_name(&message);
        let envelope = schemas::Envelope {
            message_id: domain_types::MessageId(uuid::Uuid::new_v4()),
            order_id: None,
            causation_id: None,
            occurred_at: Timestamp::from_millis(0),
            message,
        };
        let output = Output::raw(self.topic.clone(), key, envelope.encode()).control(kind);
        self.publisher.publish(&[output]).await.unwrap();
    }
}

pub fn add(key: &str, add: i64) -> (String, String) {
    (key.to_owned(), format!("{{\"add\":{add}}}"))
}

pub fn failing(key: &str, how: &str) -> (String, String) {
    (key.to_owned(), format!("{{\"add\":1,\"fail\":\"{how}\"}}"))
}
