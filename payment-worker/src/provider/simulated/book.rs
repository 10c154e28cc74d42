//! The provider's book, written in batches: calls that come together share a statement and a commit. A caller is answered
//! after the commit.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::outcomes::Fate;
use super::store::{self, NewCharge, NewRefund};

/// Calls that may wait for the next batch; more wait at the door.
const WAITING_CALLS: usize = 4_096;
/// Most calls of one batch.
const BATCH_CALLS: usize = 1_000;

enum Call {
    /// Also a void, which charges nothing. The answer: what stands in the book, and whether this call wrote it.
    Charge(NewCharge, oneshot::Sender<(Fate, bool)>),
    Query(String, oneshot::Sender<Option<Fate>>),
    /// The answer: whether the money is given back.
    Refund(NewRefund, oneshot::Sender<bool>),
}

/// A handle to the task that writes the book. The task ends once all handles are gone.
pub(super) struct Book(mpsc::Sender<Call>);

impl Book {
    pub(super) fn open(pool: PgPool) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING_CALLS);
        tokio::spawn(async move {
            let mut calls = Vec::with_capacity(BATCH_CALLS);
            while receiver.recv_many(&mut calls, BATCH_CALLS).await > 0 {
                // An error drops the callers' channels: they don't know the outcome, which is true.
                if let Err(error) = write(&pool, std::mem::take(&mut calls)).await {
                    tracing::warn!(%error, "the simulated provider's book can't be written");
                }
            }
        });
        Self(sender)
    }

    /// `None`: nobody knows.
    pub(super) async fn charge(&self, charge: NewCharge) -> Option<(Fate, bool)> {
        self.ask(|answer| Call::Charge(charge, answer)).await
    }

    /// `None`: nobody knows; `Some(None)`: the key was never seen.
    pub(super) async fn query(&self, key: &str) -> Option<Option<Fate>> {
        self.ask(|answer| Call::Query(key.to_owned(), answer)).await
    }

    /// `None`: nobody knows.
    pub(super) async fn refund(&self, refund: NewRefund) -> Option<bool> {
        self.ask(|answer| Call::Refund(refund, answer)).await
    }

    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(call(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Writes one batch: new keys, then refunds, then what the others want to know. Each statement commits by itself, and each
/// may be repeated.
async fn write(pool: &PgPool, calls: Vec<Call>) -> Result<(), sqlx::Error> {
    let (mut charges, mut queries, mut refunds) = (Vec::new(), Vec::new(), Vec::new());
    for call in calls {
        match call {
            Call::Charge(charge, answer) => charges.push((charge, answer)),
            Call::Query(key, answer) => queries.push((key, answer)),
            Call::Refund(refund, answer) => refunds.push((refund, answer)),
        }
    }
    // The first call of a key in this batch may write it. Sorted, so that two processes can't deadlock.
    let mut new: BTreeMap<&str, &NewCharge> = BTreeMap::new();
    for (charge, _) in &charges {
        new.entry(&charge.key).or_insert(charge);
    }
    let mut written = store::insert(pool, new.values().copied()).await?;
    let refunded = write_refunds(pool, &refunds).await?;
    let mut wanted: BTreeSet<&str> = queries.iter().map(|(key, _)| key.as_str()).collect();
    let mut firsts: Vec<bool> = Vec::with_capacity(charges.len());
    for (charge, _) in &charges {
        let is_first = written.remove(&charge.key);
        firsts.push(is_first);
        if !is_first {
            wanted.insert(&charge.key);
        }
    }
    let standing = store::fates(pool, &wanted).await?;
    for ((charge, answer), is_first) in charges.into_iter().zip(firsts) {
        let fate = if is_first { Some(charge.fate) } else { standing.get(&charge.key).copied() };
        if let Some(fate) = fate {
            let _caller_gone = answer.send((fate, is_first));
        }
    }
    for (key, answer) in queries {
        let _caller_gone = answer.send(standing.get(&key).copied());
    }
    for (refund, answer) in refunds {
        let _caller_gone = answer.send(refunded.contains(&refund.charge_key));
    }
    Ok(())
}

async fn write_refunds(
    pool: &PgPool,
    refunds: &[(NewRefund, oneshot::Sender<bool>)],
) -> Result<BTreeSet<String>, sqlx::Error> {
    let mut new: BTreeMap<&str, &NewRefund> = BTreeMap::new();
    for (refund, _) in refunds {
        new.entry(&refund.charge_key).or_insert(refund);
    }
    store::refund(pool, new.values().copied()).await
}
