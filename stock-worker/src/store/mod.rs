//! The only code that knows the tables, behind the [`StockStore`] that the owner works on.
//!
//! Everything is looked up by key: each lookup is `LATERAL (.. OFFSET 0)`, which the planner can't turn into a join over
//! a whole table. (The pool forbids such joins too; this way a statement says so itself.)

mod codes;
mod load;
mod save;

pub use load::Needs;
pub use save::{Changed, ChangedItem, LedgerEntry, LedgerRow};

use std::collections::BTreeSet;
use std::future::Future;

use domain_types::Sku;
use messaging::{ErrorClass, HandlerError, Tx, classify};
use stock_domain::Stock;

/// The stock of a partition, in an open transaction.
pub trait StockStore: Send {
    /// Loads what is needed and not there yet; items that are there stay as they are.
    fn load(
        &mut self,
        partition: i32,
        needs: &Needs,
        stock: &mut Stock,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Loads the items of these skus that exist and are not there yet.
    fn load_items(
        &mut self,
        partition: i32,
        skus: &BTreeSet<Sku>,
        stock: &mut Stock,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Saves a batch. Durable once the transaction commits.
    fn save(
        &mut self,
        partition: i32,
        stock: &Stock,
        changed: &Changed,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// A page of the partition's items with their versions, by sku, behind `after`.
    fn item_versions(
        &mut self,
        partition: i32,
        after: Option<&Sku>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<(Sku, i64)>, HandlerError>> + Send;
}

impl StockStore for Tx {
    async fn load(&mut self, partition: i32, needs: &Needs, stock: &mut Stock) -> Result<(), HandlerError> {
        Ok(load::load(self.reader().await?, partition, needs, stock).await?)
    }

    async fn load_items(
        &mut self,
        partition: i32,
        skus: &BTreeSet<Sku>,
        stock: &mut Stock,
    ) -> Result<(), HandlerError> {
        Ok(load::load_items(self.reader().await?, partition, skus.iter(), stock).await?)
    }

    async fn save(&mut self, partition: i32, stock: &Stock, changed: &Changed) -> Result<(), HandlerError> {
        Ok(save::save(self, partition, stock, changed).await?)
    }

    async fn item_versions(
        &mut self,
        partition: i32,
        after: Option<&Sku>,
        limit: i64,
    ) -> Result<Vec<(Sku, i64)>, HandlerError> {
        Ok(load::item_versions(self.reader().await?, partition, after, limit).await?)
    }
}

/// Why stock could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database failed.
    #[error("the stock database failed")]
    Database(#[from] sqlx::Error),
    /// Somebody else changed what this owner has in memory: read it again.
    #[error("the stored stock is not what was loaded")]
    Changed,
    /// A row that this build can't read.
    #[error("the stored {what} can't be read")]
    Unreadable {
        /// The table, and what is in it.
        what: &'static str,
        /// Why, if there is more to say.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An item that was decided on is not in memory.
    #[error("the item {0} is not in memory")]
    ItemMissing(Sku),
}

impl StoreError {
    fn unreadable(what: &'static str) -> Self {
        Self::Unreadable { what, source: None }
    }

    fn unreadable_because(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable { what, source: Some(source.into()) }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Database(error) => classify(error),
            Self::Changed => ErrorClass::Transient,
            Self::Unreadable { .. } | Self::ItemMissing(_) => ErrorClass::Bug,
        }
    }
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        match error.class() {
            ErrorClass::Transient => Self::transient(error),
            ErrorClass::Permanent => Self::permanent(error),
            ErrorClass::Bug => Self::bug(error),
        }
    }
}
