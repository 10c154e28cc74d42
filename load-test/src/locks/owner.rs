//! Partition ownership in miniature: buyers' wishes are records of one partition, its owner decides on all that have
//! arrived, writes them in one set-based transaction behind the position fence, and answers on another topic. These are
//! the steps of the stock worker, over two tables; the running one's own topics stay free of orders that nobody placed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_cluster::Cluster;
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::strategies::Told;
use crate::kafka::{OwnTopics, Produced, Producer, Reader};

/// Most records of a batch, as the product's.
const BATCH_RECORDS: usize = 1_000;
const POLL: Duration = Duration::from_millis(100);

/// A transaction of somebody who is not the owner any more.
#[derive(Debug, thiserror::Error)]
#[error("fenced: another owner has taken the partition over")]
pub(super) struct Fenced;

/// The owner of the one partition.
pub(super) struct Owner {
    pool: PgPool,
    reader: Reader,
    epoch: i64,
    /// What is left; nobody else changes it.
    units: i32,
}

/// Wishes that were read and not decided.
pub(super) struct Batch {
    buyers: Vec<i32>,
    first: i64,
    next: i64,
}

impl Owner {
    /// Takes the partition over from whoever had it, and goes on where the last transaction ended.
    pub(super) async fn take_over(pool: &PgPool, cluster: &Cluster, wishes: &str) -> anyhow::Result<Self> {
        let (epoch, next): (i64, i64) =
            sqlx::query_as("UPDATE position SET epoch = epoch + 1 RETURNING epoch, next_offset")
                .fetch_one(pool)
                .await?;
        let units: i32 = sqlx::query_scalar("SELECT units FROM item").fetch_one(pool).await?;
        let reader = Reader::at(cluster, wishes, [0], rdkafka::Offset::Offset(next))?;
        Ok(Self { pool: pool.clone(), reader, epoch, units })
    }

    /// What has arrived.
    pub(super) fn take(&self) -> anyhow::Result<Option<Batch>> {
        let taken = self.reader.take(BATCH_RECORDS, POLL)?;
        let (Some((_, first, _)), Some((_, last, _))) = (taken.first(), taken.last()) else {
            return Ok(None);
        };
        let (first, next) = (*first, last + 1);
        let buyers = taken.iter().filter_map(|(.., payload)| number(payload)).collect();
        Ok(Some(Batch { buyers, first, next }))
    }

    /// Decides, in order; after `Ok` it is durable. [`Fenced`] if somebody else has taken over.
    pub(super) async fn decide(&mut self, batch: &Batch) -> anyhow::Result<Vec<(i32, Told)>> {
        let served = usize::try_from(self.units)?.min(batch.buyers.len());
        let (sold, refused) = batch.buyers.split_at(served);
        let mut tx = messaging::begin(&self.pool).await?;
        let moved = sqlx::query("UPDATE position SET next_offset = $1 WHERE epoch = $2 AND next_offset = $3")
            .bind(batch.next)
            .bind(self.epoch)
            .bind(batch.first)
            .execute(&mut *tx)
            .await?;
        if moved.rows_affected() == 0 {
            tx.rollback().await?;
            return Err(Fenced.into());
        }
        let units = self.units - i32::try_from(served)?;
        if served > 0 {
            sqlx::query("UPDATE item SET units = $1").bind(units).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO sale (buyer) SELECT * FROM UNNEST($1::int[])")
                .bind(sold)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        self.units = units;
        let told = |buyers: &[i32], told| buyers.iter().map(|buyer| (*buyer, told)).collect::<Vec<_>>();
        Ok([told(sold, Told::Sold), told(refused, Told::SoldOut)].concat())
    }
}

fn number(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().map(|bytes| i32::from_le_bytes(*bytes))
}

type Waiting = Arc<Mutex<HashMap<i32, oneshot::Sender<Told>>>>;

/// A counter that takes wishes, with an owner behind it.
pub(super) struct Counter {
    wishes: mpsc::UnboundedSender<i32>,
    waiting: Waiting,
    stop: Arc<AtomicBool>,
    threads: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Counter {
    /// With topics `wishes` and `answers`.
    pub(super) async fn open(pool: &PgPool, cluster: &Cluster, topics: &OwnTopics) -> anyhow::Result<Self> {
        let (wishes, answers) = (topics.name(0)?.to_owned(), topics.name(1)?.to_owned());
        let (sender, mut receiver) = mpsc::unbounded_channel::<i32>();
        let (waiting, stop) = (Waiting::default(), Arc::new(AtomicBool::new(false)));
        let owner = Owner::take_over(pool, cluster, &wishes).await?;
        let heard = Reader::at(cluster, &answers, [0], rdkafka::Offset::Beginning)?;
        let (shop, service) = (Producer::new(cluster)?, Producer::new(cluster)?);
        let runtime = Handle::current();
        let threads = vec![
            tokio::task::spawn_blocking(move || {
                let mut buyers = Vec::new();
                while receiver.blocking_recv_many(&mut buyers, BATCH_RECORDS) > 0 {
                    let payloads: Vec<[u8; 4]> = buyers.drain(..).map(i32::to_le_bytes).collect();
                    produce(&shop, &wishes, payloads.iter().map(<[u8; 4]>::as_slice))?;
                }
                Ok(())
            }),
            tokio::task::spawn_blocking({
                let (stop, mut owner) = (Arc::clone(&stop), owner);
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(batch) = owner.take()? else { continue };
                        let told = runtime.block_on(owner.decide(&batch))?;
                        let answer = |(buyer, told): (i32, Told)| {
                            let mut answer = buyer.to_le_bytes().to_vec();
                            answer.push(u8::from(told == Told::Sold));
                            answer
                        };
                        let payloads: Vec<Vec<u8>> = told.into_iter().map(answer).collect();
                        produce(&service, &answers, payloads.iter().map(Vec::as_slice))?;
                    }
                    Ok(())
                }
            }),
            tokio::task::spawn_blocking({
                let (stop, waiting) = (Arc::clone(&stop), Arc::clone(&waiting));
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        for (.., payload) in heard.take(BATCH_RECORDS, POLL)? {
                            let told = if payload.get(4) == Some(&1) { Told::Sold } else { Told::SoldOut };
                            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                            let buyer = number(&payload).and_then(|buyer| waiting.remove(&buyer));
                            if let Some(buyer) = buyer {
                                buyer.send(told).ok();
                            }
                        }
                    }
                    Ok(())
                }
            }),
        ];
        Ok(Self { wishes: sender, waiting, stop, threads })
    }

    pub(super) async fn buy(&self, buyer: i32) -> anyhow::Result<Told> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(buyer, tell);
        self.wishes.send(buyer)?;
        Ok(tokio::time::timeout(Duration::from_secs(30), told).await??)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.wishes);
        for thread in self.threads {
            thread.await??;
        }
        Ok(())
    }
}

pub(super) fn produce<'a>(
    producer: &Producer,
    topic: &str,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> anyhow::Result<()> {
    let records: Vec<Produced<'_>> =
        payloads.map(|payload| Produced { topic, partition: 0, payload }).collect();
    Ok(producer.produce(&records)?)
}
