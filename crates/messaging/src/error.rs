//! Errors, and the class by which the runtime decides what to do about them.

use std::error::Error;
use std::fmt;

/// What an error asks for. Retry policy reads nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It may go away: back off and try again; nothing is lost.
    Transient,
    /// It will be the same next time: park the record.
    Permanent,
    /// Our own mistake: park the record.
    Bug,
}

type Source = Box<dyn Error + Send + Sync>;

/// Why a handler could not do its work.
#[derive(Debug)]
pub struct HandlerError {
    class: ErrorClass,
    source: Source,
}

impl HandlerError {
    /// It may go away.
    pub fn transient(source: impl Into<Source>) -> Self {
        Self { class: ErrorClass::Transient, source: source.into() }
    }

    /// It will be the same next time.
    pub fn permanent(source: impl Into<Source>) -> Self {
        Self { class: ErrorClass::Permanent, source: source.into() }
    }

    /// Our own mistake.
    pub fn bug(source: impl Into<Source>) -> Self {
        Self { class: ErrorClass::Bug, source: source.into() }
    }

    /// What it asks for.
    pub const fn class(&self) -> ErrorClass {
        self.class
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut source = self.source.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl Error for HandlerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        Self { class: classify(&error), source: error.into() }
    }
}

/// SQLSTATE that the runtime's own statement raises when the partition has another owner.
pub(crate) const SQLSTATE_FENCED: &str = "FC001";

/// The class of a database error, by SQLSTATE.
///
/// Data that the schema refuses (22, 23) is the record's fault. What the server lacks or can't do now is not, and
/// neither is a schema that does not fit the statement (42): parking every record because a migration is
/// missing would be worse than waiting for it.
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref().and_then(|code| code.get(..2)) {
            Some("22" | "23" | "P0") => ErrorClass::Permanent,
            _ => ErrorClass::Transient,
        },
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => ErrorClass::Bug,
        _ => ErrorClass::Transient,
    }
}

pub(crate) fn is_fenced(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(SQLSTATE_FENCED))
}

/// Whether the server's answer to a commit, or to a statement that is its own transaction, says that nothing was committed. A proxy
/// in between may answer with an error although the commit took effect: only what the server itself says about the
/// transaction, or about what a statement may do or needs (42, 53, 54), counts.
pub(crate) fn is_abort(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error)
        if error.code().as_deref().and_then(|code| code.get(..2)).is_some_and(|class| matches!(class, "FC" | "22" | "23" | "25" | "40" | "42" | "53" | "54" | "P0")))
}

/// Why outputs were not acknowledged. They may have been appended all the same.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker did not acknowledge, or could not be asked.
    #[error("publishing was not acknowledged")]
    NotAcknowledged(#[source] rdkafka::error::KafkaError),
    /// The producer ended before it answered.
    #[error("the producer was closed")]
    Closed,
}

/// No broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no kafka broker answers")]
pub struct BrokerAway;

/// Why a partition, or the whole consumer, stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The Kafka client can't be made, or ended with a fatal error.
    #[error("the kafka client failed")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The database answered something no retry mends.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// See the variants of [`PositionError`].
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The thread that polls Kafka ended.
    #[error("the consumer's thread ended unexpectedly")]
    ConsumerEnded,
}

/// The stored position does not belong to the log that is there. Reading on could lose or repeat records, so the
/// partition stops until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The database's position was made on another Kafka cluster.
    #[error(
        "{topic}/{partition}: the stored position belongs to kafka cluster {stored}, this is {found}; \
         connect to the right cluster, or rebuild this database"
    )]
    OtherCluster {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Cluster id in the database.
        stored: String,
        /// Cluster id of the broker.
        found: String,
    },
    /// The topic was made anew since: its first record is another one.
    #[error(
        "{topic}/{partition}: the topic was made anew since the position was stored (log {stored}, now {found}); \
         restore the topic, or rebuild this database"
    )]
    OtherLog {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Identity of the log in the database.
        stored: String,
        /// Identity of the log that is there.
        found: String,
    },
    /// The log does not hold the next record to read.
    #[error(
        "{topic}/{partition}: the next record to read is {next}, but the log holds {low}..{high}; \
         records are missing: restore the topic, or rebuild this database"
    )]
    OutsideLog {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Stored position.
        next: i64,
        /// First offset of the log.
        low: i64,
        /// One past the last offset of the log.
        high: i64,
    },
    /// The map of partitions to databases says something else than before.
    #[error(
        "{topic}/{partition} was in database {was} of the list when this process began, now the map says {now}: a partition's \
         place is fixed; stop every replica, restore the map of home (or finish moving the rows), and start them again"
    )]
    MapChanged {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Its place in the list of databases as first read.
        was: i32,
        /// Its place now.
        now: i32,
    },
    /// The partition is in a database that is not in this process's list: the list grew elsewhere.
    #[error(
        "{topic}/{partition} is in database {number}, and the list has {listed}: start this replica with the same list as the others"
    )]
    UnlistedDatabase {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Its place in the list of databases.
        number: i32,
        /// How many are listed.
        listed: usize,
    },
}
