//! The only code that knows the tables.
//!
//! Everything is looked up by key: each lookup is `LATERAL (.. OFFSET 0)`, which the planner can't turn into a join over
//! a whole table. (The pool forbids such joins too; this way a statement says so itself.)

mod codes;
mod load;
mod save;

pub(crate) use load::{Needs, item_versions, load, load_items};
pub(crate) use save::{Changed, save};

use domain_types::Sku;
use messaging::{ErrorClass, HandlerError, classify};

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
