//! Redis: the door's counts and the cached products have to be what the stock worker's items say. Both are hints that follow, so
//! this is asked of a system where nothing is under way, and is wrong only if it stays.

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Client, RedisError, TlsCertificates};
use serde_json::Value;

use crate::store::Item;
use crate::{Databases, Violation, store};

/// Why Redis could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Redis did not answer.
    #[error("redis can't be read")]
    Redis(#[from] RedisError),
    /// The stock worker's database did not answer.
    #[error("the stock can't be read")]
    Stock(#[from] sqlx::Error),
}

/// Where the door keeps its counts.
#[derive(Clone)]
pub struct Redis {
    url: String,
    authority: Option<Vec<u8>>,
}

impl Redis {
    /// One server, by its URL; `authority`: the PEM of who signed its certificate, if it is none that the system knows.
    pub fn new(url: impl Into<String>, authority: Option<Vec<u8>>) -> Self {
        Self { url: url.into(), authority }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let client = match &self.authority {
            Some(pem) => {
                let trust = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(self.url.as_str(), trust)?
            }
            None => Client::open(self.url.as_str())?,
        };
        client.get_multiplexed_async_connection().await
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// Skus of which Redis has a count or a product.
    pub skus: usize,
    /// Where it differs from the stock; names the sku.
    pub violations: Vec<Violation>,
}

/// The door's count of a sku.
#[derive(Debug)]
struct Count {
    version: i64,
    granted: i64,
    issued: i64,
    voided: i64,
    /// Tickets of which nothing is known yet.
    open: i64,
}

/// Compares one Redis server with the stock; what it has forgotten is not wrong.
///
/// # Errors
/// If Redis or the stock worker's database can't be read.
pub async fn check(redis: &Redis, databases: &Databases) -> Result<Door, DoorError> {
    let mut door = Door::default();
    let mut redis = redis.connect().await?;
    for pool in &databases.stock {
        let mut stock = messaging::snapshot(pool).await?;
        for item in store::items(&mut stock).await? {
            let (count, cached) = (count(&mut redis, &item.sku).await?, cached(&mut redis, &item.sku).await?);
            door.skus += usize::from(count.is_some() || cached.is_some());
            if let Some(differs) = count.and_then(|count| count_differs(&count, &item)) {
                let detail = format!("{}: {differs}, the stock is {item:?}", item.sku);
                door.violations.push(Violation::new("door_agrees", detail).of_sku(&item.sku));
            }
            if let Some(cached) = cached.filter(|cached| *cached != (item.version, Some(item.available))) {
                let detail =
                    format!("{}: cached are version and units {cached:?}, the stock is {item:?}", item.sku);
                door.violations.push(Violation::new("cache_agrees", detail).of_sku(&item.sku));
            }
        }
    }
    Ok(door)
}

async fn count(redis: &mut MultiplexedConnection, sku: &str) -> Result<Option<Count>, RedisError> {
    let key = format!("door:{{{sku}}}");
    let fields = &["version", "granted", "issued", "voided"];
    let (version, granted, issued, voided): (Option<i64>, Option<i64>, Option<i64>, Option<i64>) =
        redis.hmget(&key, fields).await?;
    let (Some(version), Some(granted), Some(issued), Some(voided)) = (version, granted, issued, voided)
    else {
        return Ok(None);
    };
    let open = redis.zcard(format!("{key}:open")).await?;
    Ok(Some(Count { version, granted, issued, voided, open }))
}

fn count_differs(count: &Count, item: &Item) -> Option<String> {
    // Units that were ever taken: tickets, less those that never became a hold.
    let taken = count.issued - count.voided;
    // It is told of levels that change what it counts from, not of each.
    let agrees = count.version <= item.version
        && count.granted == item.granted
        && (count.open > 0 || taken == item.granted - item.available);
    (!agrees).then(|| format!("the door has {count:?}"))
}

/// Version and available units of the cached product.
async fn cached(
    redis: &mut MultiplexedConnection,
    sku: &str,
) -> Result<Option<(i64, Option<i64>)>, RedisError> {
    let fields = &["version", "product"];
    let found: (Option<i64>, Option<String>) = redis.hmget(format!("product:{{{sku}}}:1"), fields).await?;
    let (Some(version), Some(product)) = found else { return Ok(None) };
    let product: Option<Value> = serde_json::from_str(&product).ok();
    Ok(Some((version, product.and_then(|product| product.get("available")?.as_i64()))))
}
