//! One unit bought by one buyer, under each way of keeping buyers apart that needs no log.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::Script;
use redis::aio::MultiplexedConnection;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

/// How often an optimistic buyer tries before it gives up.
pub(super) const RETRIES: usize = 10;
/// After this time a lock in Redis is free again, whatever became of its holder.
pub(super) const LOCK_TTL: Duration = Duration::from_secs(3);
/// How long a buyer waits for a lock in Redis, and how often it looks.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Only its holder frees a lock.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    )
});
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if tonumber(redis.call('GET', KEYS[1])) > 0 then redis.call('DECR', KEYS[1]) return 1 end return 0",
    )
});

/// How buyers are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    NoLock,
    Optimistic,
    Pessimistic,
    RedisLock,
    RedisScript,
}

impl Strategy {
    pub(super) const ALL: [Self; 5] =
        [Self::NoLock, Self::Optimistic, Self::Pessimistic, Self::RedisLock, Self::RedisScript];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoLock => "no lock: read, then write",
            Self::Optimistic => "optimistic lock: version, 10 retries",
            Self::Pessimistic => "pessimistic lock: SELECT FOR UPDATE",
            Self::RedisLock => "Redis lock: SET NX PX, safe release",
            Self::RedisScript => "Redis atomic script, then the row",
        }
    }
}

/// What a buyer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Sold,
    /// Nothing is left.
    SoldOut,
    /// Somebody else was always faster.
    GaveUp,
}

/// One buyer's connections.
pub(super) struct Till {
    pub(super) database: PgConnection,
    pub(super) redis: MultiplexedConnection,
    /// Prefix of what is kept in Redis.
    pub(super) prefix: String,
}

impl Till {
    pub(super) fn lock_key(&self) -> String {
        format!("{}:lock", self.prefix)
    }

    pub(super) fn units_key(&self) -> String {
        format!("{}:units", self.prefix)
    }

    pub(super) async fn buy(&mut self, strategy: Strategy, buyer: i32) -> anyhow::Result<Told> {
        match strategy {
            Strategy::NoLock => self.read_then_write(buyer).await,
            Strategy::Optimistic => self.optimistic(buyer).await,
            Strategy::Pessimistic => self.pessimistic(buyer).await,
            Strategy::RedisLock => {
                let Some(token) = self.lock().await? else { return Ok(Told::GaveUp) };
                let told = self.read_then_write(buyer).await;
                self.release(&token).await?;
                told
            }
            Strategy::RedisScript => {
                if !self.take().await? {
                    return Ok(Told::SoldOut);
                }
                let mut tx = self.database.begin().await?;
                insert(&mut tx, buyer).await?;
                tx.commit().await?;
                Ok(Told::Sold)
            }
        }
    }

    async fn read_then_write(&mut self, buyer: i32) -> anyhow::Result<Told> {
        let units = read_units(&mut self.database).await?;
        self.write(buyer, units).await
    }

    pub(super) async fn write(&mut self, buyer: i32, units: i32) -> anyhow::Result<Told> {
        if units <= 0 {
            return Ok(Told::SoldOut);
        }
        let mut tx = self.database.begin().await?;
        sqlx::query("UPDATE item SET units = $1").bind(units - 1).execute(&mut *tx).await?;
        insert(&mut tx, buyer).await?;
        tx.commit().await?;
        Ok(Told::Sold)
    }

    async fn optimistic(&mut self, buyer: i32) -> anyhow::Result<Told> {
        for _try in 0..=RETRIES {
            let (units, version): (i32, i32) =
                sqlx::query_as("SELECT units, version FROM item").fetch_one(&mut self.database).await?;
            if units <= 0 {
                return Ok(Told::SoldOut);
            }
            let mut tx = self.database.begin().await?;
            let updated = sqlx::query("UPDATE item SET units = $1, version = version + 1 WHERE version = $2")
                .bind(units - 1)
                .bind(version)
                .execute(&mut *tx)
                .await?;
            if updated.rows_affected() == 1 {
                insert(&mut tx, buyer).await?;
                tx.commit().await?;
                return Ok(Told::Sold);
            }
            tx.rollback().await?;
        }
        Ok(Told::GaveUp)
    }

    async fn pessimistic(&mut self, buyer: i32) -> anyhow::Result<Told> {
        let mut tx = self.database.begin().await?;
        let units: i32 = sqlx::query_scalar("SELECT units FROM item FOR UPDATE").fetch_one(&mut *tx).await?;
        if units <= 0 {
            tx.rollback().await?;
            return Ok(Told::SoldOut);
        }
        sqlx::query("UPDATE item SET units = $1").bind(units - 1).execute(&mut *tx).await?;
        insert(&mut tx, buyer).await?;
        tx.commit().await?;
        Ok(Told::Sold)
    }

    /// The holder's token; none if nobody let go in time.
    pub(super) async fn lock(&mut self) -> anyhow::Result<Option<String>> {
        let (token, begun) = (Uuid::new_v4().to_string(), Instant::now());
        let (key, ttl_ms) = (self.lock_key(), u64::try_from(LOCK_TTL.as_millis())?);
        while begun.elapsed() < LOCK_WITHIN {
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(&token).arg("NX").arg("PX").arg(ttl_ms);
            let answer: Option<String> = set.query_async(&mut self.redis).await?;
            if answer.is_some() {
                return Ok(Some(token));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    async fn release(&mut self, token: &str) -> anyhow::Result<()> {
        let _was_held: i32 = RELEASE.key(self.lock_key()).arg(token).invoke_async(&mut self.redis).await?;
        Ok(())
    }

    /// Takes a unit in Redis.
    pub(super) async fn take(&mut self) -> anyhow::Result<bool> {
        let taken: i32 = TAKE.key(self.units_key()).invoke_async(&mut self.redis).await?;
        Ok(taken == 1)
    }
}

pub(super) async fn read_units(database: &mut PgConnection) -> anyhow::Result<i32> {
    Ok(sqlx::query_scalar("SELECT units FROM item").fetch_one(database).await?)
}

async fn insert(tx: &mut Transaction<'_, Postgres>, buyer: i32) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO sale (buyer) VALUES ($1)").bind(buyer).execute(&mut **tx).await?;
    Ok(())
}
