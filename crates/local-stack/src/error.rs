//! What can keep a stack from starting, each in one sentence that says what to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::Part;

/// Why the stack, or a part of it, could not be started, stopped or prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// Another process owns this data folder.
    #[error("{} is in use by a stack that is running{}", dir.display(), pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// The owner, when it said who it is.
        pid: Option<u32>,
    },
    /// A port that was asked for is taken.
    #[error(
        "port {port}, wanted for {part}, is in use by another program; stop that one or choose another port"
    )]
    PortInUse {
        /// Who wanted it.
        part: Part,
        /// The port.
        port: u16,
    },
    /// No free port was found.
    #[error("no free port on 127.0.0.1 between 15000 and 32000")]
    NoFreePort,
    /// A program is not installed.
    #[error("{program} was not found; {hint}")]
    BinaryMissing {
        /// What was looked for.
        program: String,
        /// How to get it.
        hint: &'static str,
    },
    /// The Java runtime is too old, or isn't one.
    #[error(
        "Kafka needs Java 17 or newer, but {java} says {found}; install default-jre-headless or set JAVA_HOME"
    )]
    WrongJava {
        /// The program that was asked.
        java: String,
        /// Its answer.
        found: String,
    },
    /// A data folder lacks what a complete one has.
    #[error("{} is only half written ({missing} is missing): move it away, or delete all data with `firstcome reset --yes`", dir.display())]
    HalfWritten {
        /// The folder of the part.
        dir: PathBuf,
        /// The file that should be there.
        missing: &'static str,
    },
    /// A data folder was written by another version of the program.
    #[error("{} was written by {part} {found}, but {part} {installed} is installed", dir.display())]
    OtherVersion {
        /// Whose data.
        part: Part,
        /// The folder of the part.
        dir: PathBuf,
        /// Version that wrote it.
        found: String,
        /// Version that would read it.
        installed: String,
    },
    /// The part ended before it was ready.
    #[error("{part} ended while it was starting ({status}): {last_line} (all of it in {})", log.display())]
    Died {
        /// Which.
        part: Part,
        /// Exit status as the system words it.
        status: String,
        /// Its last words.
        last_line: String,
        /// Its log.
        log: PathBuf,
    },
    /// The part runs, but does not answer.
    #[error("{part} was not ready after {} s ({last_status}); its log is {}", waited.as_secs(), log.display())]
    NotReady {
        /// Which.
        part: Part,
        /// How long was waited.
        waited: Duration,
        /// What it said last.
        last_status: String,
        /// Its log.
        log: PathBuf,
    },
    /// The server named with `--kafka`, `--postgres` or `--redis` does not answer.
    #[error("{part} at {address} does not answer: {status}")]
    YoursUnreachable {
        /// Which.
        part: Part,
        /// Where, without a password.
        address: String,
        /// What happened.
        status: String,
    },
    /// The part belongs to somebody else and is not ours to start or stop.
    #[error("{part} is not run by this stack, so it can't be started or stopped by it")]
    NotOurs {
        /// Which.
        part: Part,
    },
    /// A helper program failed.
    #[error("{what} failed ({status}): {last_line}")]
    Command {
        /// What it was for.
        what: &'static str,
        /// Exit status as the system words it.
        status: String,
        /// Its last words.
        last_line: String,
    },
    /// A topic exists with another number of partitions than wanted.
    #[error(
        "topic {topic} has {found} partitions, but {wanted} are wanted; partitions are fixed when a topic is made"
    )]
    Partitions {
        /// Which topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        wanted: usize,
    },
    /// A topic exists with fewer replicas than wanted.
    #[error(
        "topic {topic} has {found} replicas of a partition, but {wanted} are wanted; Kafka's kafka-reassign-partitions.sh adds replicas"
    )]
    Replication {
        /// Which topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        wanted: usize,
    },
    /// Kafka refused an administrative request.
    #[error("Kafka refused to {what}: {reason}")]
    Topic {
        /// What was asked.
        what: String,
        /// Kafka's answer.
        reason: String,
    },
    /// PostgreSQL refused a statement.
    #[error("PostgreSQL could not {what}")]
    Sql {
        /// What was asked.
        what: String,
        /// PostgreSQL's answer.
        #[source]
        source: sqlx::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl StackError {
    /// For `map_err` on file operations.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
