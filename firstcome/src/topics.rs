//! `firstcome topics`: for a Kafka that `up` does not start, such as one in a container.

use std::process::ExitCode;

use anyhow::Context;
use kafka_cluster::Cluster;
use local_stack::topics::{Layout, ensure_replicated};

use crate::cli::Topics;

/// Makes what is missing; a repeat changes nothing.
pub(crate) async fn run(options: &Topics) -> anyhow::Result<ExitCode> {
    let layout = Layout { partitions: options.partitions, replication: options.replication };
    let cluster = Cluster::new(&options.kafka, &options.kafka_security.read()?);
    ensure_replicated(cluster, layout).await.with_context(|| format!("Kafka at {}", options.kafka))?;
    println!("all topics are there (partitions: {}, replicas: {})", layout.partitions, layout.replication);
    Ok(ExitCode::SUCCESS)
}
