//! Makes the product's topics and checks those that exist.

use std::time::Duration;

use kafka_cluster::Cluster;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use schemas::Topic;

use crate::{StackError, kafka};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A topic to make.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Keeps the newest record of each key only; every other topic keeps everything for ever.
    pub is_compacted: bool,
}

/// How a topic is spread over the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Partitions of each topic; fixed once it is made.
    pub partitions: i32,
    /// Brokers that hold a copy of each record.
    pub replication: i32,
}

impl Layout {
    /// How many replicas must hold a record before it is acknowledged: two majorities share one, so the loss of a
    /// minority loses nothing.
    fn majority(self) -> &'static str {
        match self.replication {
            ..=1 => "1",
            2 | 3 => "2",
            _ => "3",
        }
    }
}

impl From<Topic> for TopicSpec {
    fn from(topic: Topic) -> Self {
        Self { name: topic.name().to_owned(), is_compacted: topic.is_compacted() }
    }
}

/// Makes what is missing of the product's topics, with `partitions` each. After `Ok` all of them exist, durably, with that many partitions.
///
/// # Errors
/// [`StackError::Partitions`] when one exists with another number, [`StackError::Topic`] when Kafka refuses or doesn't answer within 20 s.
pub async fn ensure(cluster: impl Into<Cluster>, partitions: i32) -> Result<(), StackError> {
    ensure_replicated(cluster, Layout { partitions, replication: 1 }).await
}

/// As [`ensure`], for a cluster: a record is acknowledged once a majority of its replicas hold it.
///
/// # Errors
/// As [`ensure`]; [`StackError::Replication`] when a topic exists with fewer replicas.
pub async fn ensure_replicated(cluster: impl Into<Cluster>, layout: Layout) -> Result<(), StackError> {
    let all: Vec<TopicSpec> = Topic::ALL.into_iter().map(TopicSpec::from).collect();
    make(cluster, &all, layout).await
}

/// Makes the given topics unless they exist; as [`ensure`].
///
/// # Errors
/// As [`ensure`].
pub async fn create(
    cluster: impl Into<Cluster>,
    topics: &[TopicSpec],
    partitions: i32,
) -> Result<(), StackError> {
    make(cluster, topics, Layout { partitions, replication: 1 }).await
}

/// How many partitions the product's topics have; `None` before they are made.
///
/// # Errors
/// [`StackError::Topic`] when Kafka doesn't answer within 20 s.
pub async fn partitions(cluster: impl Into<Cluster>) -> Result<Option<i32>, StackError> {
    let admin: AdminClient<DefaultClientContext> =
        kafka::client(&cluster.into()).create().map_err(|error| undescribed(error.to_string()))?;
    let metadata = metadata(admin).await?;
    let topic = metadata.topics().iter().find(|topic| Topic::by_name(topic.name()).is_some());
    Ok(topic.and_then(|topic| i32::try_from(topic.partitions().len()).ok()))
}

fn undescribed(reason: String) -> StackError {
    StackError::Topic { what: "describe its topics".to_owned(), reason }
}

async fn metadata(admin: AdminClient<DefaultClientContext>) -> Result<Metadata, StackError> {
    let asked = tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, TIMEOUT));
    let answer = asked.await.map_err(|error| undescribed(error.to_string()))?;
    answer.map_err(|error| undescribed(error.to_string()))
}

async fn make(cluster: impl Into<Cluster>, topics: &[TopicSpec], layout: Layout) -> Result<(), StackError> {
    let refused = |what: String| move |error: String| StackError::Topic { what, reason: error };
    let admin: AdminClient<DefaultClientContext> = kafka::client(&cluster.into())
        .create()
        .map_err(|error| refused("accept a client".to_owned())(error.to_string()))?;
    let new: Vec<NewTopic<'_>> = topics.iter().map(|topic| new_topic(topic, layout)).collect();
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let results = admin
        .create_topics(&new, &options)
        .await
        .map_err(|error| refused("create topics".to_owned())(error.to_string()))?;
    let mut existing = Vec::new();
    for result in results {
        match result {
            Ok(_) => {}
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => existing.push(name),
            Err((name, code)) => return Err(refused(format!("create topic {name}"))(code.to_string())),
        }
    }
    check_existing(admin, existing, layout).await
}

fn new_topic(topic: &TopicSpec, layout: Layout) -> NewTopic<'_> {
    let new = NewTopic::new(&topic.name, layout.partitions, TopicReplication::Fixed(layout.replication))
        .set("message.timestamp.type", "LogAppendTime")
        .set("min.insync.replicas", layout.majority());
    if topic.is_compacted {
        new.set("cleanup.policy", "compact")
    } else {
        new.set("cleanup.policy", "delete").set("retention.ms", "-1").set("retention.bytes", "-1")
    }
}

async fn check_existing(
    admin: AdminClient<DefaultClientContext>,
    topics: Vec<String>,
    layout: Layout,
) -> Result<(), StackError> {
    if topics.is_empty() {
        return Ok(());
    }
    let wanted = usize::try_from(layout.partitions).unwrap_or_default();
    let replicas = usize::try_from(layout.replication).unwrap_or_default();
    let metadata = metadata(admin).await?;
    for topic in metadata.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name())) {
        let found = topic.partitions().len();
        if found != wanted {
            return Err(StackError::Partitions { topic: topic.name().to_owned(), found, wanted });
        }
        let fewest = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        if let Some(found) = fewest.filter(|found| *found < replicas) {
            return Err(StackError::Replication { topic: topic.name().to_owned(), found, wanted: replicas });
        }
    }
    Ok(())
}
