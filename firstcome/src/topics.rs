//! `firstcome topics`: for a Kafka that `up` does not start, such as one in a container.

use std::process::ExitCode;

use anyhow::Context;
use kafka_cluster::Cluster;
use local_stack::StackError;
use local_stack::topics::{Layout, ensure_replicated, partitions};

use crate::cli::Topics;

/// Partitions of each topic that `firstcome topics` makes, unless told otherwise.
const DEFAULT_PARTITIONS: i32 = 2;

/// The partitions that were asked for, else those that are there, else `otherwise`.
pub(crate) async fn wanted(asked: Option<i32>, cluster: &Cluster, otherwise: i32) -> Result<i32, StackError> {
    match asked {
        Some(partitions) => Ok(partitions),
        None => Ok(partitions(cluster.clone()).await?.unwrap_or(otherwise)),
    }
}

/// Makes what is missing; a repeat changes nothing.
pub(crate) async fn run(options: &Topics) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::new(&options.kafka, &options.kafka_security.read()?);
    let at = || format!("Kafka at {}", options.kafka);
    let partitions = wanted(options.partitions, &cluster, DEFAULT_PARTITIONS).await.with_context(at)?;
    let layout = Layout { partitions, replication: options.replication };
    ensure_replicated(cluster, layout).await.with_context(at)?;
    println!("all topics are there (partitions: {}, replicas: {})", layout.partitions, layout.replication);
    Ok(ExitCode::SUCCESS)
}
