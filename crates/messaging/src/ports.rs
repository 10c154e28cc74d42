//! The owner's ports on PostgreSQL and Kafka.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use domain_types::Timestamp;
use sqlx::{Connection, PgConnection, PgPool};

use crate::consumer::{Order, Reading};
use crate::databases::Lost;
use crate::error::is_fenced;
use crate::owner::{Failure, Observed, Ports, TakenOver, Transaction, Work};
use crate::rules::{self, House, LogFacts};
use crate::runtime::Shared;
use crate::store::{self, PositionKey};
use crate::tx::CommitError;
use crate::{
    ErrorClass, Handler, HandlerError, HandlerFactory, NextOffset, Offset, Output, Ownership, Parsed, Record,
    Tx, Waker, crash_point, trace,
};

/// The ports of one partition.
pub(crate) struct PgPorts<F: HandlerFactory> {
    shared: Arc<Shared<F>>,
    key: PositionKey,
    waker: Waker,
    labels: [String; 2],
    /// This partition's database, as it was told at the last take-over.
    pool: Option<PgPool>,
    handler: Option<F::Handler>,
    reading: Reading,
    next: std::sync::atomic::AtomicI64,
    /// That of the last transaction, and when it was used.
    connection: Option<(PgConnection, Instant)>,
}

/// A connection that nobody used for so long is tried before it is: the server may have been restarted.
const TRY_AFTER_IDLE: Duration = Duration::from_millis(500);

fn rolled_back(error: HandlerError) -> Failure {
    Failure::RolledBack { class: error.class(), detail: error.to_string() }
}

fn database(error: sqlx::Error) -> Failure {
    if is_fenced(&error) { Failure::Fenced } else { rolled_back(error.into()) }
}

fn lost(lost: Lost) -> Failure {
    match lost {
        Lost::Away(error) => database(error),
        Lost::Stop(error) => Failure::Stop(error),
    }
}

fn kafka(error: &rdkafka::error::KafkaError) -> Failure {
    Failure::RolledBack { class: ErrorClass::Transient, detail: error.to_string() }
}

impl<F: HandlerFactory> PgPorts<F> {
    pub(crate) fn new(shared: Arc<Shared<F>>, key: PositionKey, waker: Waker) -> Self {
        let labels = [key.topic.clone(), key.partition.to_string()];
        Self {
            shared,
            key,
            waker,
            labels,
            pool: None,
            handler: None,
            reading: Reading::default(),
            next: std::sync::atomic::AtomicI64::new(0),
            connection: None,
        }
    }

    pub(crate) fn partition(&self) -> i32 {
        self.key.partition
    }

    /// The reading that was last asked for.
    pub(crate) fn reading(&self) -> Reading {
        self.reading
    }

    /// The database of the take-over that holds; nothing is written anywhere without one.
    fn pool(&self) -> Result<PgPool, Failure> {
        self.pool.clone().ok_or(Failure::Fenced)
    }

    fn labels(&self) -> [&str; 2] {
        self.labels.each_ref().map(String::as_str)
    }

    pub(crate) fn observe_lag(&self, high_watermark: Option<i64>) {
        if let Some(high) = high_watermark {
            let next = self.next.load(std::sync::atomic::Ordering::Relaxed);
            self.shared.metrics.lag_records.with_label_values(&self.labels()).set((high - next).max(0));
        }
    }

    fn is_compacted(&self) -> bool {
        schemas::Topic::by_name(&self.key.topic).is_some_and(schemas::Topic::is_compacted)
    }

    /// One past the last offset of the log; `None` if the broker does not tell.
    pub(crate) async fn end_of_log(&mut self) -> Option<i64> {
        let (reader, topic, partition) =
            (Arc::clone(&self.shared.reader), self.key.topic.clone(), self.key.partition);
        let asked = tokio::task::spawn_blocking(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.bounds(&topic, partition).map(|(_, high)| high)
        });
        asked.await.ok().and_then(Result::ok)
    }

    async fn ask_log(&mut self) -> Result<LogFacts, Failure> {
        let (reader, topic, partition) =
            (Arc::clone(&self.shared.reader), self.key.topic.clone(), self.key.partition);
        let (is_compacted, cluster_id) = (self.is_compacted(), self.shared.cluster_id.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let (low, high) = reader.bounds(&topic, partition)?;
            let log_id = if is_compacted { None } else { reader.log_id(&topic, partition, low, high)? };
            Ok::<_, rdkafka::error::KafkaError>(LogFacts { cluster_id, log_id, low, high })
        });
        match asked.await {
            Ok(Ok(facts)) => Ok(facts),
            Ok(Err(error)) => Err(kafka(&error)),
            Err(error) => Err(rolled_back(HandlerError::transient(error))),
        }
    }

    /// A transaction, on the connection of the last one if that still serves.
    async fn open(&mut self) -> Result<Tx, Failure> {
        if let Some((mut connection, used)) = self.connection.take()
            && (used.elapsed() < TRY_AFTER_IDLE || connection.ping().await.is_ok())
        {
            return Ok(Tx::on(connection));
        }
        Tx::open(&self.pool()?).await.map_err(database)
    }

    /// The body of a transaction, up to but without the commit.
    async fn execute(
        &mut self,
        tx: &mut Tx,
        transaction: &Transaction<'_, <F::Handler as Handler>::Input>,
    ) -> Result<Vec<Output>, Failure> {
        let handler = self.handler.as_mut().ok_or(Failure::Fenced)?;
        let config = &self.shared.config;
        let house = House {
            group: &config.group,
            dead_letters: &config.dead_letters,
            output_bytes: config.limits.output_bytes,
        };
        let outputs = rules::outputs_of(handler, tx, transaction, house).await.map_err(rolled_back)?;
        if self.is_contiguous() && !transaction.park.is_empty() {
            let writer = tx.writer().await.map_err(database)?;
            store::park(writer, &self.key, transaction.park).await.map_err(database)?;
        }
        if !transaction.unpark.is_empty() {
            let writer = tx.writer().await.map_err(database)?;
            store::unpark(writer, &self.key, transaction.unpark).await.map_err(database)?;
        }
        if let Some(log_id) = &transaction.log_id {
            let writer = tx.writer().await.map_err(database)?;
            store::set_log_id(writer, &self.key, log_id).await.map_err(database)?;
        }
        Ok(outputs)
    }
}

impl<F: HandlerFactory> Ports for PgPorts<F> {
    type Input = <F::Handler as Handler>::Input;

    async fn take_over(&mut self) -> Result<TakenOver, Failure> {
        (self.handler, self.pool, self.connection) = (None, None, None);
        let (number, pool) = self.shared.config.databases.of(&self.key).await.map_err(lost)?;
        self.pool = Some(pool.clone());
        let position =
            store::raise_epoch(&pool, &self.key, &self.shared.cluster_id).await.map_err(database)?;
        crash_point(&self.key.group, "epoch-raised");
        // Only now: from here on nobody else moves the position, so the log can only be longer than it needs to be.
        let facts = self.ask_log().await?;
        let (topic, partition) = (&self.key.topic, self.key.partition);
        rules::check_position(topic, partition, &position.stored, &facts).map_err(Failure::Stop)?;
        if let (None, Some(log_id)) = (&position.stored.log_id, &facts.log_id) {
            store::set_log_id(&pool, &self.key, log_id).await.map_err(database)?;
        }
        let inherited = store::outbox(&pool, &self.key).await.map_err(database)?;
        let parked = store::parked_keys(&pool, &self.key).await.map_err(database)?;
        let mut recorded = self.shared.recorded.get(&self.key.partition).cloned().unwrap_or_default();
        let recorded = recorded.split_off(&Offset(position.stored.next.0));
        tracing::info!(
            topic = self.key.topic,
            partition = self.key.partition,
            epoch = position.epoch,
            database = number,
            next_offset = position.stored.next.0,
            inherited = inherited.len(),
            "partition taken over"
        );
        crash_point(&self.key.group, "taken-over");
        Ok(TakenOver { epoch: position.epoch, next: position.stored.next, inherited, parked, recorded })
    }

    async fn begin(&mut self, epoch: i64) -> Result<(), Failure> {
        let ownership = Ownership {
            topic: Arc::clone(&self.shared.topic),
            partition: self.key.partition,
            epoch,
            pool: self.pool()?,
            waker: self.waker.clone(),
        };
        self.handler = Some(self.shared.factory.take_over(ownership).await.map_err(rolled_back)?);
        crash_point(&self.key.group, "begun");
        Ok(())
    }

    fn read_from(&mut self, next: NextOffset) {
        self.reading.0 += 1;
        let orders = self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let _thread_gone = orders.send(Order::Read(self.key.partition, next, self.reading));
    }

    async fn transact(&mut self, transaction: Transaction<'_, Self::Input>) -> Result<Vec<Output>, Failure> {
        let (started, began) = (Instant::now(), SystemTime::now());
        let mut tx = self.open().await?;
        let executed = self.execute(&mut tx, &transaction).await;
        crash_point(&self.key.group, "before-commit");
        let positions = (transaction.expected, transaction.next);
        let result = match executed {
            Ok(outputs) => {
                let (row, done) = (transaction.row, transaction.done);
                match store::commit(&mut tx, &self.key, row, positions, &outputs, done).await {
                    Ok(()) => Ok(outputs),
                    Err(CommitError::RolledBack(error)) => Err(database(error)),
                    Err(CommitError::Unknown(error)) => {
                        tracing::warn!(%error, "the answer to a commit was lost");
                        Err(Failure::Fenced)
                    }
                }
            }
            Err(failure) => Err(failure),
        };
        self.connection = match &result {
            Ok(_) => Some(tx.into_connection()),
            Err(_) => tx.roll_back().await,
        }
        .map(|connection| (connection, Instant::now()));
        if let Some(handler) = self.handler.as_mut() {
            if result.is_ok() { handler.committed() } else { handler.rolled_back() }
        }
        if let (Some(tracer), Some(handler), Work::Records(batch), Ok(_)) =
            (&self.shared.config.tracer, &self.handler, &transaction.work, &result)
        {
            trace::end_spans(tracer, &self.shared.config.group, handler, batch, began);
        }
        let seconds = started.elapsed().as_secs_f64();
        self.shared.metrics.transaction_seconds.with_label_values(&self.labels()).observe(seconds);
        result
    }

    async fn publish(&mut self, outputs: &[Output]) -> Result<(), Failure> {
        let started = Instant::now();
        crash_point(&self.key.group, "before-publish");
        let published = self.shared.publisher.publish(outputs).await;
        crash_point(&self.key.group, "published");
        published.map_err(|error| rolled_back(HandlerError::transient(error)))?;
        let seconds = started.elapsed().as_secs_f64();
        self.shared.metrics.publish_seconds.with_label_values(&self.labels()).observe(seconds);
        Ok(())
    }

    async fn parked(&mut self, offsets: &[Offset]) -> Result<Vec<Record>, Failure> {
        let pool = self.pool()?;
        store::parked_records(&pool, &self.key, &self.shared.topic, offsets).await.map_err(database)
    }

    fn parse(&self, record: &Record) -> Parsed<Self::Input> {
        rules::parse(self.handler.as_ref(), record)
    }

    fn next_work(&self) -> Option<Timestamp> {
        self.handler.as_ref().and_then(Handler::next_work)
    }

    fn is_contiguous(&self) -> bool {
        !self.is_compacted()
    }

    fn group(&self) -> &str {
        &self.key.group
    }

    fn observe(&self, event: Observed) {
        let metrics = &self.shared.metrics;
        let labels = &self.labels();
        match event {
            Observed::TakenOver => metrics.take_overs.with_label_values(labels).inc(),
            Observed::Fenced => {
                tracing::warn!(
                    topic = self.key.topic,
                    partition = self.key.partition,
                    "partition owner was fenced"
                );
                metrics.fencings.with_label_values(labels).inc();
            }
            Observed::Batch { records } => {
                let count = u32::try_from(records).unwrap_or(u32::MAX);
                metrics.records.with_label_values(labels).inc_by(u64::from(count));
                metrics.batch_records.with_label_values(labels).observe(f64::from(count));
            }
            Observed::Retry => metrics.retries.with_label_values(labels).inc(),
            Observed::ParkedKeys(keys) => {
                metrics.parked_keys.with_label_values(labels).set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            Observed::Unpublished(batches) => {
                metrics
                    .outbox_batches
                    .with_label_values(labels)
                    .set(i64::try_from(batches).unwrap_or(i64::MAX));
            }
            Observed::Position(next) => self.next.store(next.0, std::sync::atomic::Ordering::Relaxed),
            Observed::ReadAgain => {
                tracing::warn!(
                    topic = self.key.topic,
                    partition = self.key.partition,
                    "records are read again"
                );
                metrics.read_again.with_label_values(labels).inc();
            }
            Observed::ControlIgnored => metrics.control_ignored.with_label_values(labels).inc(),
        }
    }
}
