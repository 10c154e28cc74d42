//! Limits and library options, written out.

use std::time::Duration;

use kafka_cluster::Cluster;
use rdkafka::error::KafkaError;

/// Records of a partition that may be set aside, unless settings say otherwise.
pub const PARKED_RECORDS: usize = 100_000;

/// Limits of one consumer. The defaults are meant for production.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most records of one transaction.
    pub batch_records: usize,
    /// Most bytes of one transaction's records.
    pub batch_bytes: usize,
    /// Records that may wait in memory per partition before fetching pauses.
    pub inbox_records: usize,
    /// Bytes that may wait in memory per partition before fetching pauses.
    pub inbox_bytes: usize,
    /// Largest output, key and headers included. Must be below the topics' `max.message.bytes` (1 MiB).
    pub output_bytes: usize,
    /// Records of a partition that may be set aside. With one more the partition stands still: most likely this build is wrong,
    /// not that many records. What is behind waits in the log.
    pub parked_records: usize,
    /// Transactions a partition may do at once after quiet.
    pub pace_burst: u32,
    /// Transactions a partition may do per second under steady load; what arrives meanwhile joins the next batch.
    pub pace_per_second: u32,
    /// Times as long as a transaction and its publishing took that the partition rests before the next one, at most 250 ms; 0: not at all.
    /// It does not while a full batch waits. For read models: under load they write each row less often, and leave the machine to others.
    pub rest: u32,
    /// How long the broker may hold records back so that there are more of them in one fetch; zero: it sends the first
    /// at once. For read models that may be late: each fetch and each batch costs the same however small it is.
    pub gather: Duration,
    /// First wait after a transient failure; doubles up to `back_off_max`.
    pub back_off_min: Duration,
    /// Longest wait after a transient failure.
    pub back_off_max: Duration,
    /// Quiet time after which published outbox rows are deleted.
    pub outbox_quiet: Duration,
    /// Quiet time after which the log is asked whether there is more than what arrived.
    pub liveness: Duration,
    /// How long a shutdown waits for the transaction in hand and its outputs.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_records: 1_000,
            batch_bytes: 1 << 20,
            inbox_records: 10_000,
            inbox_bytes: 16 << 20,
            output_bytes: 1_000_000,
            parked_records: PARKED_RECORDS,
            pace_burst: 8,
            pace_per_second: 250,
            rest: 0,
            gather: Duration::ZERO,
            back_off_min: Duration::from_millis(20),
            back_off_max: Duration::from_secs(2),
            outbox_quiet: Duration::from_secs(1),
            liveness: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// What a client says about its connections: a broker that is away shows in readiness and in answers that do not come, but
/// one that refuses us would never be found out.
pub(crate) fn report(client: &str, error: &KafkaError, reason: &str) {
    if kafka_cluster::is_refusal(error) {
        tracing::error!(client, %error, reason, "kafka refuses us: see kafka_security, and the broker's grants");
    } else {
        tracing::debug!(client, %error, reason, "kafka reports an error");
    }
}

/// Options of every Kafka client here.
pub(crate) fn client_options(cluster: &Cluster, client_id: &str) -> rdkafka::ClientConfig {
    let mut options = cluster.client(client_id);
    options
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false")
        .set("allow.auto.create.topics", "false");
    options
}

/// Options of a consumer that reads by explicit offsets and never stores any in Kafka.
pub(crate) fn consumer_options(
    cluster: &Cluster,
    client_id: &str,
    gather: Duration,
) -> rdkafka::ClientConfig {
    let mut options = client_options(cluster, client_id);
    let (bytes, wait) = if gather.is_zero() { (1, 500) } else { (65_536, gather.as_millis()) };
    options
        .set("fetch.min.bytes", bytes.to_string())
        .set("fetch.wait.max.ms", wait.to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.error.backoff.ms", "100")
        // Not the default second: reading a long log would be ten thousand records and a pause, again and again.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "16384")
        .set("enable.partition.eof", "false");
    options
}

/// Options of a member of a consumer group.
pub(crate) fn group_options(cluster: &Cluster, group: &str, gather: Duration) -> rdkafka::ClientConfig {
    let mut options = consumer_options(cluster, group, gather);
    options
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", "300000")
        .set("statistics.interval.ms", "5000");
    options
}

/// Options of the producer.
pub(crate) fn producer_options(
    cluster: &Cluster,
    client_id: &str,
    give_up: Duration,
) -> rdkafka::ClientConfig {
    let mut options = client_options(cluster, client_id);
    options
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", give_up.as_millis().to_string()) // 0: never
        .set("message.max.bytes", "1048576")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("compression.type", "lz4");
    options
}
