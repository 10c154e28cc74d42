//! How a command ended.

use std::error::Error;

use order_orchestrator::ReadError;

/// What a command that could be carried out says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Fine,
    /// Exit code 1: drift, a violation, a refusal, or nothing of that name.
    Found,
}

impl Verdict {
    /// [`Verdict::Found`] if so.
    pub(crate) const fn found_if(found: bool) -> Self {
        if found { Self::Found } else { Self::Fine }
    }
}

/// Why a command could not be carried out, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Found(String),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("{0}")]
    Away(String),
    /// Exit code 130, as of any program that Ctrl-C ends.
    #[error("{0}")]
    Interrupted(String),
}

/// An error and what is behind it, in one line.
pub(crate) fn in_full(error: &dyn Error) -> String {
    let source = error.source().map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

impl Failure {
    pub(crate) fn found(what: impl Into<String>) -> Self {
        Self::Found(what.into())
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    pub(crate) fn away(what: impl Into<String>) -> Self {
        Self::Away(what.into())
    }

    /// The process's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Found(_) => 1,
            Self::Usage(_) => 2,
            Self::Away(_) => 3,
            Self::Interrupted(_) => 130,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(error) => Self::Away(format!("the orchestrator's database failed: {error}")),
            ReadError::Unreadable(why) => Self::Found(why),
        }
    }
}

impl From<messaging::KafkaError> for Failure {
    fn from(error: messaging::KafkaError) -> Self {
        Self::Away(format!("Kafka does not answer: {error}"))
    }
}
