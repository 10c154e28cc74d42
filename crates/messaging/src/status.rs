//! Whether a consumer does its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartitionStatus {
    TakingOver,
    Owned,
    Stopped(String),
}

#[derive(Debug, Default)]
struct Inner {
    joined: bool,
    partitions: BTreeMap<(String, i32), PartitionStatus>,
}

/// Shared view of a consumer's partitions, for readiness. One may serve several consumers of a process.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<Inner>>);

impl Status {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn joined(&self) {
        self.with(|inner| inner.joined = true);
    }

    pub(crate) fn set(&self, topic: &str, partition: i32, status: PartitionStatus) {
        self.with(|inner| inner.partitions.insert((topic.to_owned(), partition), status));
    }

    pub(crate) fn released(&self, topic: &str, partition: i32) {
        self.with(|inner| inner.partitions.remove(&(topic.to_owned(), partition)));
    }

    /// Whether the group is joined and every assigned partition is taken over.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn ready(&self) -> Result<(), String> {
        self.with(|inner| {
            if !inner.joined {
                return Err("has not joined its consumer group yet".to_owned());
            }
            for ((topic, partition), status) in &inner.partitions {
                match status {
                    PartitionStatus::Owned => {}
                    PartitionStatus::TakingOver => {
                        return Err(format!("{topic}/{partition} is being taken over"));
                    }
                    PartitionStatus::Stopped(error) => return Err(error.clone()),
                }
            }
            Ok(())
        })
    }
}
