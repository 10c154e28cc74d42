//! The same sale of one hot product under each way of keeping buyers apart: how many units too many or too few it
//! sells, how fast, and what becomes of it when somebody dies in the middle.
//!
//! Each way gets the same buyers, the same units and as many buyers at once, each with a connection of its own to
//! PostgreSQL and Redis, in a database of their own. A purchase is two rows: the item's, and the buyer's.

mod death;
mod owner;
mod strategies;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use clap::Args;
use kafka_cluster::Cluster;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::Audit;
use crate::database::OwnDatabase;
use crate::endpoints::Endpoints;
use crate::kafka::OwnTopics;
use crate::latency::Latency;
use crate::out::say;
use crate::table::{Table, ms};
use owner::Counter;
use strategies::{Strategy, Till, Told};

const SCHEMA: &str = "
    CREATE TABLE item (units int NOT NULL, version int NOT NULL);
    CREATE TABLE sale (buyer int PRIMARY KEY);
    CREATE TABLE position (epoch bigint NOT NULL, next_offset bigint NOT NULL);
    INSERT INTO item VALUES (0, 0);
    INSERT INTO position VALUES (0, 0)";
const OWNERSHIP: &str = "partition ownership: one writer, a batch at a time";

/// `load-test locks`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Buyers, each of whom wants one unit.
    #[arg(long, default_value_t = 8_000)]
    pub(crate) buyers: u32,
    /// Units for sale.
    #[arg(long, default_value_t = 4_000)]
    pub(crate) units: u32,
    /// Buyers at once, each with connections of its own.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
}

/// What a sale came to.
#[derive(Serialize)]
pub(crate) struct Sale {
    pub(crate) name: &'static str,
    pub(crate) seen: Seen,
    /// Buyers who were told that nothing is left, and that others were faster.
    pub(crate) refused: u64,
    pub(crate) gave_up: u64,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
    /// What was seen when somebody died while it held what keeps others out.
    pub(crate) death: String,
}

/// Units, by the rows that say who has bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    pub(crate) sold: u64,
    pub(crate) oversold: u64,
    pub(crate) unsold: u64,
}

impl Seen {
    const fn of(sold: u64, units: u64) -> Self {
        Self { sold, oversold: sold.saturating_sub(units), unsold: units.saturating_sub(sold) }
    }
}

impl Sale {
    /// Buyers who were refused while there was a unit for them.
    fn refused_wrongly(&self) -> u64 {
        self.seen.unsold.min(self.refused + self.gave_up)
    }
}

/// Where sales are held.
struct Ground {
    database: OwnDatabase,
    redis: redis::Client,
    cluster: Cluster,
    prefix: String,
}

impl Ground {
    async fn till(&self) -> anyhow::Result<Till> {
        Ok(Till {
            database: PgConnection::connect(&self.database.url).await?,
            redis: self.redis.get_multiplexed_async_connection().await?,
            prefix: self.prefix.clone(),
        })
    }

    /// So many units, nobody has bought, nothing is locked.
    async fn reset(&self, units: u32) -> anyhow::Result<()> {
        let mut tx = messaging::begin(&self.database.pool).await?;
        sqlx::query("TRUNCATE sale").execute(&mut *tx).await?;
        sqlx::query("UPDATE item SET units = $1, version = 0")
            .bind(i32::try_from(units)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE position SET epoch = 0, next_offset = 0").execute(&mut *tx).await?;
        tx.commit().await?;
        let mut till = self.till().await?;
        let (lock, left) = (till.lock_key(), till.units_key());
        redis::cmd("DEL").arg(lock).exec_async(&mut till.redis).await?;
        redis::cmd("SET").arg(left).arg(units).exec_async(&mut till.redis).await?;
        Ok(())
    }

    async fn seen(&self, units: u32) -> anyhow::Result<Seen> {
        let sold: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sale").fetch_one(&self.database.pool).await?;
        Ok(Seen::of(u64::try_from(sold)?, units.into()))
    }

    async fn remove(self) -> anyhow::Result<()> {
        let mut till = self.till().await?;
        let keys = [till.lock_key(), till.units_key()];
        redis::cmd("DEL").arg(&keys).exec_async(&mut till.redis).await?;
        drop(till);
        self.database.remove().await
    }
}

/// Holds all sales.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Locks> {
    let ground = Ground {
        database: OwnDatabase::make(endpoints, SCHEMA, 4).await?,
        redis: redis::Client::open(endpoints.redis.as_str())?,
        cluster: endpoints.cluster(),
        prefix: format!("load-test:{}", Uuid::new_v4().simple()),
    };
    let sales = all(&ground, options).await;
    ground.remove().await?;
    Ok(Locks {
        buyers: options.buyers,
        units: options.units,
        connections: options.connections,
        sales: sales?,
    })
}

async fn all(ground: &Ground, options: &Options) -> anyhow::Result<Vec<Sale>> {
    let mut sales = Vec::new();
    for strategy in Strategy::ALL {
        let mut tills = Vec::new();
        for _ in 0..options.connections.max(1) {
            tills.push(ground.till().await?);
        }
        ground.reset(options.units).await?;
        let buy = async |till: &mut Till, buyer| till.buy(strategy, buyer).await;
        let mut sale = hold(options.buyers, tills, buy, strategy.name()).await?;
        sale.seen = ground.seen(options.units).await?;
        sale.death = death::tried(ground, strategy).await?;
        sales.push(sale);
    }
    ground.reset(options.units).await?;
    let topics = OwnTopics::make(&ground.cluster, &["wishes", "answers"], 1).await?;
    let counter = Arc::new(Counter::open(&ground.database.pool, &ground.cluster, &topics).await?);
    let counters: Vec<Arc<Counter>> = (0..options.connections.max(1)).map(|_| Arc::clone(&counter)).collect();
    let buy = async |counter: &mut Arc<Counter>, buyer| counter.buy(buyer).await;
    let held = hold(options.buyers, counters, buy, OWNERSHIP).await;
    let closed = match Arc::into_inner(counter) {
        Some(counter) => counter.close().await,
        None => Ok(()),
    };
    topics.remove().await?;
    // What ended the owner says more than that buyers were not told.
    closed?;
    let mut sale = held?;
    sale.seen = ground.seen(options.units).await?;
    sale.death = death::owner(ground).await?;
    sales.push(sale);
    Ok(sales)
}

/// Each of `tills` serves one buyer after the other, until all have been told.
async fn hold<T, F>(buyers: u32, tills: Vec<T>, buy: F, name: &'static str) -> anyhow::Result<Sale>
where
    F: AsyncFn(&mut T, i32) -> anyhow::Result<Told>,
{
    let next = AtomicI32::new(0);
    let last = i32::try_from(buyers)?;
    let begun = Instant::now();
    let serve = async |mut till: T| {
        let (mut latency, mut refused, mut gave_up) = (Latency::default(), 0_u64, 0_u64);
        loop {
            let buyer = next.fetch_add(1, Ordering::Relaxed);
            if buyer >= last {
                return Ok::<_, anyhow::Error>((latency, refused, gave_up));
            }
            let came = Instant::now();
            let told = buy(&mut till, buyer).await?;
            latency.record(came.elapsed());
            match told {
                Told::Sold => {}
                Told::SoldOut => refused += 1,
                Told::GaveUp => gave_up += 1,
            }
        }
    };
    let served = futures::future::try_join_all(tills.into_iter().map(serve)).await?;
    let took = begun.elapsed().as_secs_f64();
    let mut sale = Sale {
        name,
        seen: Seen::of(0, 0),
        refused: 0,
        gave_up: 0,
        per_second: f64::from(buyers) / took,
        latency: Latency::default(),
        death: String::new(),
    };
    for (latency, refused, gave_up) in served {
        sale.latency.merge(&latency);
        sale.refused += refused;
        sale.gave_up += gave_up;
    }
    Ok(sale)
}

/// All sales.
#[derive(Serialize)]
pub(crate) struct Locks {
    buyers: u32,
    units: u32,
    connections: usize,
    pub(crate) sales: Vec<Sale>,
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buyers, units, connections, sales } = self;
        writeln!(f, "{buyers} buyers want one of {units} units of one product, {connections} at once\n")?;
        let mut table = Table::new([
            "kept apart by",
            "sold",
            "oversold",
            "refused wrongly",
            "gave up",
            "buyers/s",
            "p50, ms",
            "p99, ms",
        ]);
        for sale in sales {
            let Seen { sold, oversold, .. } = sale.seen;
            let counts =
                [sold, oversold, sale.refused_wrongly(), sale.gave_up].map(|count| count.to_string());
            let figures = sale.latency.figures();
            let times = [format!("{:.0}", sale.per_second), ms(figures.p50), ms(figures.p99)];
            table.row([sale.name.to_owned()].into_iter().chain(counts).chain(times));
        }
        writeln!(f, "{table}\nWhat becomes of it when a process dies, tried with what it held:\n")?;
        for Sale { name, death, .. } in sales {
            writeln!(f, "- {name}: {death}.")?;
        }
        Ok(())
    }
}

/// `load-test locks`: whether partition ownership sold exactly what there was, and the audit of the system is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let locks = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{locks}\n{audit}"))?;
    Ok(locks.holds() && audit.is_clean())
}

impl Locks {
    /// Whether the product's own way sold what there was, as long as there were buyers.
    pub(crate) fn holds(&self) -> bool {
        let wanted = u64::from(self.units.min(self.buyers));
        self.sales.iter().filter(|sale| sale.name == OWNERSHIP).all(|sale| sale.seen.sold == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(sold: u64, units: u64, refused: u64, gave_up: u64) -> Sale {
        let (latency, death) = (Latency::default(), String::new());
        Sale { name: "x", seen: Seen::of(sold, units), refused, gave_up, per_second: 1.0, latency, death }
    }

    #[test]
    fn refused_wrongly_is_who_could_have_had_what_is_left() {
        assert_eq!(sale(100, 100, 900, 0).refused_wrongly(), 0);
        assert_eq!(sale(98, 100, 0, 50).refused_wrongly(), 2);
        assert_eq!(sale(50, 100, 10, 0).refused_wrongly(), 10, "there were not more buyers");
        assert_eq!(sale(130, 100, 870, 0).seen, Seen { sold: 130, oversold: 30, unsold: 0 });
    }
}
