//! The floor of a saga: for each hop of a paid order one produce, one consume, one set-based write and one commit, and
//! nothing else. No decision, no JSON, no outbox, no second row; records and rows of the product's size.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use kafka_cluster::Cluster;
use rdkafka::Offset;
use serde::Serialize;
use sqlx::PgPool;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::database::OwnDatabase;
use crate::endpoints::Endpoints;
use crate::kafka::{OwnTopics, Produced, Producer, Reader};

/// What one step reads: the topics below.
const SAGA: usize = 0;
const STOCK: usize = 1;
const PAYMENT: usize = 2;
const EVENTS: usize = 3;
const TOPICS: [&str; 4] = ["saga", "stock", "payment", "events"];
/// Place, reserve, reserved, charge, charged, confirm, confirmed.
const HOPS: [usize; 7] = [SAGA, STOCK, SAGA, PAYMENT, SAGA, STOCK, SAGA];
/// The hop that makes an order paid and says so on `events`, which a read model writes down as well.
const CHARGED: u8 = 4;
/// As the product's.
const PARTITIONS: i32 = 2;
/// Most records of a batch, as the product's.
const BATCH_RECORDS: usize = 1_000;
/// About what a message of the product has.
const PAYLOAD_BYTES: usize = 450;
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
    CREATE TABLE state (service smallint, partition_id int, order_id uuid, body bytea NOT NULL,
                        PRIMARY KEY (service, partition_id, order_id));
    CREATE TABLE position (service smallint, partition_id int, next_offset bigint NOT NULL,
                           PRIMARY KEY (service, partition_id));
    INSERT INTO position SELECT s, p, 0 FROM generate_series(0, 3) s, generate_series(0, 1) p";

/// What was seen.
#[derive(Serialize)]
pub(crate) struct Hops {
    pub(crate) orders: usize,
    pub(crate) in_flight: usize,
    pub(crate) per_second: f64,
}

/// Drives that many orders through all hops, with at most so many that are not paid yet.
pub(crate) async fn run(endpoints: &Endpoints, orders: usize, in_flight: usize) -> anyhow::Result<Hops> {
    let cluster = endpoints.cluster();
    let topics = OwnTopics::make(&cluster, &TOPICS, PARTITIONS).await?;
    let database = OwnDatabase::make(endpoints, SCHEMA, 8).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let measured = drive(&cluster, &topics, &database.pool, &stop, orders, in_flight).await;
    stop.store(true, Ordering::Relaxed);
    database.remove().await?;
    topics.remove().await?;
    Ok(Hops { orders, in_flight, per_second: measured? })
}

async fn drive(
    cluster: &Cluster,
    topics: &OwnTopics,
    pool: &PgPool,
    stop: &Arc<AtomicBool>,
    orders: usize,
    in_flight: usize,
) -> anyhow::Result<f64> {
    let names: Vec<String> =
        (0..TOPICS.len()).map(|number| topics.name(number).map(str::to_owned)).collect::<Result<_, _>>()?;
    let mut owners = Vec::new();
    for service in 0..TOPICS.len() {
        // One producer for each service, as the services have.
        let producer = Arc::new(Producer::new(cluster)?);
        for partition in 0..PARTITIONS {
            let name = names.get(service).context("no topic")?;
            let owner = Owner {
                service: i16::try_from(service)?,
                partition,
                reader: Reader::at(cluster, name, [partition], Offset::Beginning)?,
                producer: Arc::clone(&producer),
                names: names.clone(),
                pool: pool.clone(),
                runtime: Handle::current(),
                stop: Arc::clone(stop),
            };
            owners.push(tokio::task::spawn_blocking(move || owner.run()));
        }
    }
    let producer = Producer::new(cluster)?;
    let events =
        Reader::at(cluster, names.get(EVENTS).context("no topic")?, 0..PARTITIONS, Offset::Beginning)?;
    let saga = names.get(SAGA).context("no topic")?.clone();
    let ended = Arc::clone(stop);
    let load = tokio::task::spawn_blocking(move || {
        let load = Load { producer, events, saga };
        // The first ones make connections and plans.
        let measured = load.closed(orders / 20, in_flight).and_then(|_warm| load.closed(orders, in_flight));
        ended.store(true, Ordering::Relaxed);
        measured
    });
    let measured = load.await?;
    // What ended an owner says more than that orders stand still.
    for owner in owners {
        owner.await??;
    }
    let took = measured?;
    Ok(f64::from(u32::try_from(orders)?) / took.as_secs_f64())
}

/// Places orders and hears that they are paid.
struct Load {
    producer: Producer,
    events: Reader,
    saga: String,
}

impl Load {
    fn closed(&self, orders: usize, in_flight: usize) -> anyhow::Result<Duration> {
        let (begun, mut placed, mut paid) = (Instant::now(), 0, 0);
        let mut heard = Instant::now();
        while paid < orders {
            let room = (in_flight + paid).saturating_sub(placed).min(orders - placed);
            let new: Vec<(i32, Vec<u8>)> = (placed..placed + room)
                .map(|number| (i32::from(number % 2 == 1), payload(0, Uuid::now_v7())))
                .collect();
            let records: Vec<Produced<'_>> = new
                .iter()
                .map(|(partition, payload)| Produced { topic: &self.saga, partition: *partition, payload })
                .collect();
            self.producer.produce(&records)?;
            placed += room;
            let taken = self.events.take(usize::MAX, Duration::from_millis(100))?.len();
            paid += taken;
            if taken > 0 {
                heard = Instant::now();
            }
            anyhow::ensure!(heard.elapsed() < PATIENCE, "{} orders are not paid", placed - paid);
        }
        Ok(begun.elapsed())
    }
}

fn payload(hop: u8, order: Uuid) -> Vec<u8> {
    let mut payload = vec![b' '; PAYLOAD_BYTES];
    payload.splice(..17, [hop].into_iter().chain(order.into_bytes()));
    payload
}

/// The owner of one service's partition.
struct Owner {
    service: i16,
    partition: i32,
    reader: Reader,
    producer: Arc<Producer>,
    names: Vec<String>,
    pool: PgPool,
    runtime: Handle,
    stop: Arc<AtomicBool>,
}

impl Owner {
    fn run(&self) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let taken = self.reader.take(BATCH_RECORDS, Duration::from_millis(100))?;
            let Some((_, last, _)) = taken.last() else { continue };
            let next = last + 1;
            let (mut ids, mut bodies, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
            for (_, _, payload) in taken {
                let (Some(hop), Some(id)) = (payload.first().copied(), payload.get(1..17)) else { continue };
                let order = Uuid::from_slice(id)?;
                if usize::from(self.service.unsigned_abs()) != EVENTS {
                    self.follow(hop, order, &mut outputs);
                }
                ids.push(order);
                bodies.push(payload);
            }
            self.runtime.block_on(self.save(&ids, &bodies, next))?;
            let records: Vec<Produced<'_>> = outputs
                .iter()
                .map(|(topic, payload)| Produced { topic, partition: self.partition, payload })
                .collect();
            self.producer.produce(&records)?;
        }
        Ok(())
    }

    /// What a record leads to.
    fn follow<'a>(&'a self, hop: u8, order: Uuid, outputs: &mut Vec<(&'a str, Vec<u8>)>) {
        let next = HOPS.get(usize::from(hop) + 1).and_then(|topic| self.names.get(*topic));
        if let Some(topic) = next {
            outputs.push((topic, payload(hop + 1, order)));
        }
        if let (CHARGED, Some(events)) = (hop, self.names.get(EVENTS)) {
            outputs.push((events, payload(hop, order)));
        }
    }

    async fn save(&self, ids: &[Uuid], bodies: &[Vec<u8>], next: i64) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "WITH moved AS (UPDATE position SET next_offset = $5 WHERE service = $1 AND partition_id = $2)
             INSERT INTO state SELECT $1, $2, * FROM UNNEST($3::uuid[], $4::bytea[])
             ON CONFLICT (service, partition_id, order_id) DO UPDATE SET body = excluded.body",
        )
        .bind(self.service)
        .bind(self.partition)
        .bind(ids)
        .bind(bodies)
        .bind(next)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hops_are_those_of_a_paid_saga() {
        assert_eq!(HOPS[usize::from(CHARGED)], SAGA, "the orchestrator hears that it is charged");
        assert_eq!(HOPS.iter().filter(|topic| **topic == SAGA).count(), 4);
        assert!(HOPS.windows(2).all(|pair| (pair[0] == SAGA) != (pair[1] == SAGA)));
        let payload = payload(3, Uuid::nil());
        assert_eq!((payload.len(), payload[0]), (PAYLOAD_BYTES, 3));
    }
}
