//! A Kafka of several nodes on one machine, for tests of what one of them must not take with it.

use std::fs::File;
use std::time::{Duration, Instant};

use kafka_cluster::{Cluster, Security};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::Mutex;

use crate::folder::{make_dir, tail, take_lock};
use crate::kafka::{self, Kafka, Seat, cluster_id};
use crate::{GuardedChild, Part, Signal, StackError, StackOptions, free_ports};

const POLL: Duration = Duration::from_millis(50);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Several brokers, each a controller too. They end when this is dropped, and when this process dies in any way.
#[derive(Debug)]
pub struct Brokers {
    nodes: Vec<Node>,
    start_deadline: Duration,
    /// Held as long as the brokers live; the system releases it when the process dies.
    _lock: File,
}

#[derive(Debug)]
struct Node {
    kafka: Kafka,
    child: Mutex<Option<GuardedChild>>,
}

/// Who holds a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The node that leads it; -1 while none does.
    pub leader: i32,
    /// All nodes that are to hold it.
    pub all: Vec<i32>,
    /// Those of them that have caught up.
    pub in_sync: Vec<i32>,
}

impl Brokers {
    /// Starts `count` nodes, numbered from 1, with the folder, heap, compiler and deadline of `options`; returns once all of
    /// them answer and know each other.
    ///
    /// # Errors
    /// As [`crate::Stack::start`], about Kafka.
    pub async fn start(options: &StackOptions, count: u8) -> Result<Self, StackError> {
        let dir = make_dir(&options.dir)?;
        let lock = take_lock(&dir).await?;
        let ports = free_ports(2 * usize::from(count), &[])?;
        let (clients, controllers) = ports.split_at(usize::from(count));
        let controllers: Vec<(u8, u16)> = (1..).zip(controllers.iter().copied()).collect();
        let cluster_id = cluster_id();
        let mut prepare = (1..).zip(clients).map(|(node, port)| {
            let controllers = controllers.clone();
            let seat = Seat { node, port: *port, controllers, cluster_id: cluster_id.clone() };
            Kafka::prepare(&dir, seat, options)
        });
        let mut kafkas = Vec::new();
        if let Some(first) = prepare.next() {
            // What all of them need (jars, the settings of logs) is made once.
            kafkas.push(first.await?);
            kafkas.extend(futures::future::try_join_all(prepare).await?);
        }
        let nodes = kafkas.into_iter().map(|kafka| Node { kafka, child: Mutex::new(None) }).collect();
        let brokers = Self { nodes, start_deadline: options.start_deadline, _lock: lock };
        for node in &brokers.nodes {
            node.spawn().await?;
        }
        for node in &brokers.nodes {
            brokers.until_ready(node).await?;
        }
        Ok(brokers)
    }

    /// Bootstrap addresses of all nodes.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(|node| node.kafka.address()).collect();
        all.join(",")
    }

    /// `kill -9` of a node; returns once it is gone.
    ///
    /// # Errors
    /// When the system can't say whether it lives, or there is no such node.
    pub async fn kill(&self, node: i32) -> Result<(), StackError> {
        let node = self.node(node)?;
        if let Some(child) = node.child.lock().await.as_mut() {
            let ended = child.end(Signal::Kill, Duration::from_secs(10)).await;
            ended.map_err(StackError::io("end the process that logs to", node.kafka.log()))?;
        }
        Ok(())
    }

    /// Starts a node that was killed, with its port and data; returns once it answers. Its replicas may still be catching up.
    ///
    /// # Errors
    /// When it ends at once or does not answer in time, or there is no such node.
    pub async fn start_again(&self, node: i32) -> Result<(), StackError> {
        let node = self.node(node)?;
        node.spawn().await?;
        self.until_ready(node).await
    }

    /// Who holds each partition, in order of topic and partition, by any node that answers.
    ///
    /// # Errors
    /// What the client said, for people.
    pub async fn replicas(&self) -> Result<Vec<Replicas>, String> {
        let cluster = Cluster::new(&self.bootstrap(), &Security::default());
        tokio::task::spawn_blocking(move || ask(&cluster)).await.map_err(|error| error.to_string())?
    }

    fn node(&self, node: i32) -> Result<&Node, StackError> {
        let index = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
        index.and_then(|index| self.nodes.get(index)).ok_or(StackError::NotOurs { part: Part::Kafka })
    }

    async fn until_ready(&self, node: &Node) -> Result<(), StackError> {
        let began = Instant::now();
        let (part, log) = (Part::Kafka, node.kafka.log());
        loop {
            let cluster = Cluster::new(&node.kafka.address(), &Security::default());
            let answer = kafka::answers(cluster, ANSWERS_WITHIN).await;
            let mut child = node.child.lock().await;
            let status = child.as_mut().map(GuardedChild::try_wait).transpose();
            if let Some(status) = status.map_err(StackError::io("look after", &log))?.flatten() {
                let last_line = tail(&log, 0).lines().next_back().unwrap_or("it said nothing").to_owned();
                return Err(StackError::Died { part, status: status.to_string(), last_line, log });
            }
            drop(child);
            match answer {
                Ok(()) => return Ok(()),
                Err(last_status) if began.elapsed() >= self.start_deadline => {
                    return Err(StackError::NotReady { part, waited: began.elapsed(), last_status, log });
                }
                Err(_not_yet) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Node {
    async fn spawn(&self) -> Result<(), StackError> {
        let log = self.kafka.log();
        let child = self.kafka.command(&log).spawn();
        let child = child.map_err(StackError::io("start a process that logs to", &log))?;
        *self.child.lock().await = Some(child);
        Ok(())
    }
}

fn ask(cluster: &Cluster) -> Result<Vec<Replicas>, String> {
    let consumer: BaseConsumer = kafka::client(cluster).create().map_err(|error| error.to_string())?;
    let metadata = consumer.fetch_metadata(None, ANSWERS_WITHIN).map_err(|error| error.to_string())?;
    let mut all: Vec<Replicas> = Vec::new();
    for topic in metadata.topics() {
        all.extend(topic.partitions().iter().map(|partition| Replicas {
            topic: topic.name().to_owned(),
            partition: partition.id(),
            leader: partition.leader(),
            all: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
        }));
    }
    all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(all)
}
