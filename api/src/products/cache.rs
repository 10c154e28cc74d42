//! Products by sku, as the shop shows them: read from the projection through Redis, where each newer level is written, too.
//!
//! Why a product never goes back to what it was: an entry is only ever replaced by a newer version, and lives at most 5 s
//! from the instant at which the database said so; so an older version's entry ends before a newer one's, whoever wrote it
//! and however late. There are no entries for skus that don't exist: a product is there for everybody once it is stored.

mod entries;
mod flights;
mod metrics;
#[cfg(test)]
mod tests;
mod write_through;

use std::sync::Arc;
use std::time::Instant;

use domain_types::Sku;
use prometheus::Registry;
use sqlx::PgPool;

use self::entries::Entries;
use self::flights::{Answer, Flight, Flights};
use self::metrics::{CacheMetrics, Read};
use crate::app::bounded;
use crate::problem::Problem;
use crate::products::model::{Product, Versioned};
use crate::products::store;
use crate::redis::{Redis, RedisAway};

pub(crate) use write_through::{Level, WriteThrough};

/// The products that requests read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    pool: PgPool,
    entries: Entries,
    flights: Flights,
    metrics: CacheMetrics,
}

impl Catalogue {
    /// Reads from `pool` through `redis`.
    ///
    /// # Errors
    /// If the registry has such metrics already.
    pub(crate) fn new(pool: PgPool, redis: Redis, registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = CacheMetrics::register(registry)?;
        let entries = Entries::new(redis, metrics.clone());
        Ok(Self { pool, entries, flights: Flights::default(), metrics })
    }

    /// Where the projection leaves the levels that it has stored.
    pub(crate) fn write_through(&self) -> WriteThrough {
        WriteThrough::new(self.entries.clone())
    }

    /// The product as it was when this was called, or later. Those who ask for the same sku share an answer, and the
    /// look-up goes on when they hang up.
    ///
    /// # Errors
    /// `503` if neither Redis nor the database answers.
    pub(crate) async fn product(&self, sku: &Sku) -> Result<Option<Arc<Product>>, Problem> {
        let (answer, flight) = self.flights.join(sku);
        if let Some(flight) = flight {
            tokio::spawn(self.clone().fly(flight));
        }
        answer.await.unwrap_or_else(|_the_flight_failed| Err(Problem::internal()))
    }

    /// After this no node shows an older version.
    ///
    /// # Errors
    /// If Redis does not answer: it may hold an older version, and answer to other nodes.
    pub(crate) async fn show(&self, product: &Versioned, as_of: Instant) -> Result<(), RedisAway> {
        let level = Level { product: product.clone(), as_of };
        self.entries.put(std::slice::from_ref(&level)).await
    }

    async fn fly(self, mut flight: Flight) {
        while let Some(waiting) = flight.board() {
            let (from, answer) = self.look_up(flight.sku()).await;
            self.metrics.read(from, waiting.len());
            for reader in waiting {
                let _gave_up = reader.send(answer.clone());
            }
        }
    }

    async fn look_up(&self, sku: &Sku) -> (Read, Answer) {
        let from = match self.entries.get(sku).await {
            Ok(Some(product)) => return (Read::Hit, Ok(Some(Arc::new(product)))),
            Ok(None) => Read::Miss,
            Err(RedisAway) => Read::Away,
        };
        let as_of = Instant::now();
        self.metrics.loads.inc();
        let found = match bounded(store::versioned(&self.pool, sku)).await {
            Ok(Some(found)) => found,
            Ok(None) => return (from, Ok(None)),
            Err(problem) => return (from, Err(problem)),
        };
        if from == Read::Miss {
            // Without the entry the next reader loads it again.
            let _away = self.show(&found, as_of).await;
        }
        (from, Ok(Some(Arc::new(found.product))))
    }
}
