//! What becomes of a sale when somebody dies, or stands still, while holding what keeps the others out: tried.

use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::Connection;

use super::owner::{Fenced, Owner, produce};
use super::strategies::{LOCK_TTL, Strategy, Told, read_units};
use super::{Ground, Seen};
use crate::kafka::{OwnTopics, Producer};
use crate::table::ms;

/// How long somebody stands still.
const FROZEN: Duration = Duration::from_secs(2);

/// Tries it, and says in a sentence what was seen.
pub(super) async fn tried(ground: &Ground, strategy: Strategy) -> anyhow::Result<String> {
    match strategy {
        Strategy::NoLock | Strategy::Optimistic => nothing_held(ground, strategy).await,
        Strategy::Pessimistic => row_lock(ground).await,
        Strategy::RedisLock => redis_lock(ground).await,
        Strategy::RedisScript => redis_script(ground).await,
    }
}

fn since(begun: Instant) -> String {
    format!("{} ms", ms(begun.elapsed().as_secs_f64() * 1e3))
}

async fn nothing_held(ground: &Ground, strategy: Strategy) -> anyhow::Result<String> {
    ground.reset(2).await?;
    let mut dies = ground.till().await?;
    let _read = read_units(&mut dies.database).await?;
    dies.database.close_hard().await?;
    let begun = Instant::now();
    let told = ground.till().await?.buy(strategy, 1).await?;
    anyhow::ensure!(told == Told::Sold, "the next buyer was told {told:?}");
    Ok(format!("it holds nothing; the next buyer buys after {}, connecting included", since(begun)))
}

async fn row_lock(ground: &Ground) -> anyhow::Result<String> {
    let mut waited = Vec::new();
    for frozen in [Duration::ZERO, FROZEN] {
        ground.reset(2).await?;
        let (mut holder, mut next) = (ground.till().await?, ground.till().await?);
        sqlx::raw_sql("BEGIN; SELECT units FROM item FOR UPDATE").execute(&mut holder.database).await?;
        let begun = Instant::now();
        let ends = async {
            tokio::time::sleep(frozen).await;
            // As when its process dies: the system closes the connection without a word.
            holder.database.close_hard().await
        };
        let (told, ended) = tokio::join!(next.buy(Strategy::Pessimistic, 1), ends);
        ended?;
        anyhow::ensure!(told? == Told::Sold, "the next buyer did not buy");
        waited.push(since(begun));
    }
    let [died, frozen] = waited.as_slice() else { anyhow::bail!("two were tried") };
    Ok(format!(
        "died: its connection ends, the next buyer buys after {died}; frozen for {} s: all wait that long ({frozen}), \
         PostgreSQL sets no limit by itself",
        FROZEN.as_secs()
    ))
}

async fn redis_lock(ground: &Ground) -> anyhow::Result<String> {
    ground.reset(1).await?;
    let (mut holder, mut next) = (ground.till().await?, ground.till().await?);
    holder.lock().await?.context("nobody else has the lock")?;
    let units = read_units(&mut holder.database).await?;
    let begun = Instant::now();
    let told = next.buy(Strategy::RedisLock, 1).await?;
    let waited = since(begun);
    // It was not dead: it wakes up with a lock that is not its own any more.
    let late = holder.write(2, units).await?;
    let Seen { sold, .. } = ground.seen(1).await?;
    Ok(format!(
        "all wait for the TTL of {} s: the next buyer is told {told:?} after {waited}; was it only frozen, it then \
         writes what it had read ({late:?}): {sold} sold of 1",
        LOCK_TTL.as_secs()
    ))
}

async fn redis_script(ground: &Ground) -> anyhow::Result<String> {
    ground.reset(1).await?;
    let (mut dies, mut next) = (ground.till().await?, ground.till().await?);
    anyhow::ensure!(dies.take().await?, "there was one");
    drop(dies);
    let begun = Instant::now();
    let told = next.buy(Strategy::RedisScript, 1).await?;
    let (waited, Seen { sold, .. }) = (since(begun), ground.seen(1).await?);
    Ok(format!(
        "nobody waits ({waited}), but the unit is gone: the next buyer is told {told:?}, {sold} sold of 1, until \
         somebody counts again"
    ))
}

/// The owner dies between reading and its commit; or it did not, and comes back.
pub(super) async fn owner(ground: &Ground) -> anyhow::Result<String> {
    ground.reset(1).await?;
    let topics = OwnTopics::make(&ground.cluster, &["wishes"], 1).await?;
    let tried = take_over(ground, topics.name(0)?).await;
    topics.remove().await?;
    tried
}

async fn take_over(ground: &Ground, wishes: &str) -> anyhow::Result<String> {
    let pool = &ground.database.pool;
    let mut first = Owner::take_over(pool, &ground.cluster, wishes).await?;
    produce(&Producer::new(&ground.cluster)?, wishes, [1_i32.to_le_bytes().as_slice()].into_iter())?;
    let in_hand = arrived(&first)?;
    let begun = Instant::now();
    let mut second = Owner::take_over(pool, &ground.cluster, wishes).await?;
    let told = second.decide(&arrived(&second)?).await?;
    let waited = since(begun);
    let fenced = match first.decide(&in_hand).await {
        Err(error) if error.is::<Fenced>() => "is fenced",
        Err(error) => return Err(error),
        Ok(_written) => "was NOT fenced",
    };
    let Seen { sold, .. } = ground.seen(1).await?;
    let told = told.first().map(|(_, told)| *told);
    Ok(format!(
        "the group notices after its session time-out (6 s); its successor reads the same records again and has told \
         the buyer {told:?} {waited} after it began; was it only frozen, it {fenced}: {sold} sold of 1"
    ))
}

fn arrived(owner: &Owner) -> anyhow::Result<super::owner::Batch> {
    let begun = Instant::now();
    loop {
        if let Some(batch) = owner.take()? {
            return Ok(batch);
        }
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(20), "the wish did not arrive");
    }
}
