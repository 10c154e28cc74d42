//! `firstcome topics`: for a Kafka that `up` does not start, such as one in a container.

use std::process::ExitCode;

use anyhow::Context;
use kafka_cluster::Cluster;
use local_stack::topics::{DEFAULT_PARTITIONS, Layout, ensure_replicated, partitions};

use crate::cli::Topics;

/// Makes what is missing; a repeat changes nothing.
pub(crate) async fn run(options: &Topics) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::new(&options.kafka, &options.kafka_security.read()?);
    let at = || format!("Kafka at {}", options.kafka);
    let partitions = match options.partitions {
        Some(partitions) => partitions,
        None => partitions(cluster.clone()).await.with_context(at)?.unwrap_or(DEFAULT_PARTITIONS),
    };
    let layout = Layout { partitions, replication: options.replication };
    ensure_replicated(cluster, layout).await.with_context(at)?;
    println!("all topics are there (partitions: {}, replicas: {})", layout.partitions, layout.replication);
    Ok(ExitCode::SUCCESS)
}
