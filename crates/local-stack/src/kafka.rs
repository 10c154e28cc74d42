//! Apache Kafka: a KRaft node that is broker and controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_cluster::Cluster;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::child::GuardedCommand;
use crate::folder::nursery;
use crate::{Jit, Part, RelayedListener, SecuredListener, StackError, StackOptions, jars, java};

/// Which node of which cluster.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) node: u8,
    /// For clients.
    pub(crate) port: u16,
    /// All controllers' ports, the node's own among them, by node.
    pub(crate) controllers: Vec<(u8, u16)>,
    pub(crate) cluster_id: String,
}

impl Seat {
    /// The only node of a new cluster.
    pub(crate) fn alone(port: u16, controller_port: u16) -> Self {
        Self { node: 1, port, controllers: vec![(1, controller_port)], cluster_id: cluster_id() }
    }

    /// `kafka`, or `kafka-2` of several.
    pub(crate) fn name(&self) -> String {
        match self.controllers.len() {
            ..=1 => "kafka".to_owned(),
            _ => format!("kafka-{}", self.node),
        }
    }

    fn controller_port(&self) -> u16 {
        let own = self.controllers.iter().find(|(node, _)| *node == self.node);
        own.map_or(0, |(_, port)| *port)
    }

    fn voters(&self) -> String {
        let voters: Vec<String> =
            self.controllers.iter().map(|(node, port)| format!("{node}@127.0.0.1:{port}")).collect();
        voters.join(",")
    }
}

/// What is needed to start the broker again and again.
#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) port: u16,
    seat: Seat,
    pub(crate) heap_mib: u32,
    pub(crate) jit: Jit,
    pub(crate) secured: Option<SecuredListener>,
    pub(crate) relayed: Option<RelayedListener>,
    /// The stack's folder.
    pub(crate) dir: PathBuf,
    java: PathBuf,
    class_path: String,
}

const LOG4J: &str = r"status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
";

impl Kafka {
    /// Finds Java and the jars, and formats the data folder if there is none.
    pub(crate) async fn prepare(dir: &Path, seat: Seat, options: &StackOptions) -> Result<Self, StackError> {
        let java = java::find().await?;
        let class_path = jars::class_path(&options.progress).await?;
        let kafka = Self {
            port: seat.port,
            seat,
            heap_mib: options.kafka_heap_mib,
            jit: options.kafka_jit,
            secured: options.kafka_secured.clone(),
            relayed: options.kafka_relayed,
            dir: dir.to_owned(),
            java,
            class_path,
        };
        let log4j = kafka.file("log4j2.properties");
        if fs::read_to_string(&log4j).ok().as_deref() != Some(LOG4J) {
            fs::write(&log4j, LOG4J).map_err(StackError::io("write", &log4j))?;
        }
        let data = kafka.data();
        if data.exists() {
            if !data.join("meta.properties").is_file() {
                return Err(StackError::HalfWritten { dir: data, missing: "meta.properties" });
            }
        } else {
            (options.progress)(Part::Kafka, "formatting its data folder");
            kafka.format().await?;
        }
        kafka.write_settings(&kafka.settings(), &data)?;
        Ok(kafka)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.dir.join(self.seat.name())
    }

    fn settings(&self) -> PathBuf {
        self.file(&format!("{}.properties", self.seat.name()))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log").join(format!("{}.log", self.seat.name()))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }

    /// Formats beside the final place and renames: an interrupted format leaves nothing that looks complete.
    async fn format(&self) -> Result<(), StackError> {
        let data = self.data();
        let new = nursery(&data);
        let settings = self.file(&format!("{}-format.properties", self.seat.name()));
        self.write_settings(&settings, &new)?;
        let (status, said) = GuardedCommand::new("env", self.log())
            .args(self.tool("kafka.tools.StorageTool"))
            .arg("format")
            .args(["--cluster-id", &self.seat.cluster_id, "--config"])
            .arg(&settings)
            .args(self.scram_accounts())
            .run_to_end()
            .await
            .map_err(StackError::io("run", &self.java))?;
        if !status.success() {
            return Err(StackError::Command {
                what: "formatting Kafka's data folder",
                status: status.to_string(),
                last_line: said.lines().next_back().unwrap_or("no output").to_owned(),
            });
        }
        fs::rename(&new, &data).map_err(StackError::io("rename", new))
    }

    fn write_settings(&self, file: &Path, data: &Path) -> Result<(), StackError> {
        let at = |(name, port): &(&str, u16)| format!("{name}://127.0.0.1:{port}");
        let open = ("PLAINTEXT", self.seat.port);
        let secured = self.secured.iter().map(|listener| ("SECURED", listener.port));
        let relayed = self.relayed.iter().map(|listener| ("RELAYED", listener.port));
        let listeners: Vec<_> = [open].into_iter().chain(secured.clone()).chain(relayed).collect();
        let relayed = self.relayed.iter().map(|listener| ("RELAYED", listener.advertised));
        let advertised: Vec<_> = [open].into_iter().chain(secured).chain(relayed).collect();
        let [listeners, advertised] =
            [listeners, advertised].map(|doors| doors.iter().map(at).collect::<Vec<_>>().join(","));
        // Kafka's own topics survive what ours do: a majority of three copies holds what is acknowledged.
        let copies = self.seat.controllers.len().min(3);
        let majority = copies / 2 + 1;
        let mut settings = vec![
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", self.seat.node.to_string()),
            ("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{}", self.seat.controller_port())),
            ("advertised.listeners", advertised),
            (
                "listener.security.protocol.map",
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,RELAYED:PLAINTEXT,SECURED:SASL_SSL".to_owned(),
            ),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            // A static quorum keeps the controller's port out of the data, so that it may change between starts.
            ("controller.quorum.voters", self.seat.voters()),
            ("log.dirs", data.display().to_string()),
            ("log.message.timestamp.type", "LogAppendTime".to_owned()),
            ("auto.create.topics.enable", "false".to_owned()),
            ("min.insync.replicas", majority.to_string()),
            ("offsets.topic.replication.factor", copies.to_string()),
            ("offsets.topic.num.partitions", "2".to_owned()),
            ("transaction.state.log.replication.factor", copies.to_string()),
            ("transaction.state.log.min.isr", majority.to_string()),
            ("transaction.state.log.num.partitions", "2".to_owned()),
            ("share.coordinator.state.topic.replication.factor", copies.to_string()),
            ("share.coordinator.state.topic.min.isr", majority.to_string()),
            ("share.coordinator.state.topic.num.partitions", "2".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            // Lets tests of failures use short sessions.
            ("group.min.session.timeout.ms", "1000".to_owned()),
            // A broker that was killed may register again after this; the default keeps a restart waiting for 9 s.
            ("broker.session.timeout.ms", "3000".to_owned()),
            ("broker.heartbeat.interval.ms", "500".to_owned()),
            ("num.network.threads", "2".to_owned()),
            ("num.io.threads", "4".to_owned()),
            ("background.threads", "2".to_owned()),
            // The default, 128 MiB, does not fit a small heap.
            ("log.cleaner.dedupe.buffer.size", "16777216".to_owned()),
        ];
        settings.extend(self.secured.iter().flat_map(secured_settings));
        let text: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(file, text).map_err(StackError::io("write", file))
    }

    /// Arguments that make the accounts when the data folder is formatted.
    fn scram_accounts(&self) -> Vec<String> {
        let accounts = self.secured.iter().flat_map(|secured| &secured.accounts);
        let made = |(user, password): &(String, String)| {
            ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]
        };
        accounts.flat_map(made).collect()
    }

    /// How one of Kafka's own programs is called, up to its arguments.
    pub(crate) fn tool(&self, class: &str) -> Vec<String> {
        let log4j = format!("-Dlog4j2.configurationFile={}", self.file("log4j2.properties").display());
        let java = self.java.display().to_string();
        let options =
            ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m", &log4j, "-cp", &self.class_path];
        [java.as_str()].into_iter().chain(options).chain([class]).map(str::to_owned).collect()
    }

    pub(crate) fn command(&self, log: &Path) -> GuardedCommand {
        let heap = self.heap_mib;
        let jit = match self.jit {
            Jit::Quick => Some("-XX:TieredStopAtLevel=1"),
            Jit::Full => None,
        };
        GuardedCommand::new(&self.java, log)
            .args([format!("-Xms{heap}m"), format!("-Xmx{heap}m"), "-XX:+UseSerialGC".to_owned()])
            .args(jit)
            .args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"])
            .arg(format!("-Dlog4j2.configurationFile={}", self.file("log4j2.properties").display()))
            .args(["-cp", &self.class_path, "kafka.Kafka"])
            .arg(self.settings())
    }
}

fn secured_settings(secured: &SecuredListener) -> [(&'static str, String); 6] {
    [
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512".to_owned()),
        (
            "listener.name.secured.scram-sha-512.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned(),
        ),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", secured.key_store.display().to_string()),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        // Whoever comes in through the open door: the broker itself, and an administrator.
        ("super.users", "User:ANONYMOUS".to_owned()),
    ]
}

/// Whether a broker answers there and every partition it knows has a leader; else why not. Blocks for at most about `patience`.
pub(crate) async fn answers(cluster: Cluster, patience: Duration) -> Result<(), String> {
    tokio::task::spawn_blocking(move || ask(&cluster, patience)).await.map_err(|error| error.to_string())?
}

fn ask(cluster: &Cluster, patience: Duration) -> Result<(), String> {
    let consumer: BaseConsumer = client(cluster).create().map_err(|error| error.to_string())?;
    let metadata = consumer.fetch_metadata(None, patience).map_err(|error| error.to_string())?;
    if metadata.brokers().is_empty() {
        return Err("no broker has registered yet".to_owned());
    }
    for topic in metadata.topics() {
        if let Some(partition) = topic.partitions().iter().find(|partition| partition.leader() < 0) {
            return Err(format!("{} [{}] has no leader yet", topic.name(), partition.id()));
        }
    }
    Ok(())
}

/// A client that keeps quiet: whoever uses it reports the outcome.
pub(crate) fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = cluster.client("local-stack");
    config
        .set("socket.timeout.ms", "5000")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "200")
        .set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Kafka's spelling of a random id: 16 bytes as unpadded URL-safe base64. A leading dash would be taken for an option.
pub(crate) fn cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        let bits = uuid::Uuid::new_v4().as_u128();
        let id: String = (0..22_u32)
            .rev()
            .map(|digit| {
                // 22 digits of 6 bits hold 132 bits: the id's 128, then four zero bits at the end.
                let shifted = if digit == 0 { bits << 4 } else { bits >> (digit * 6 - 4) };
                let index = usize::try_from(shifted & 63).unwrap_or_default();
                ALPHABET.get(index).copied().map_or('A', char::from)
            })
            .collect();
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cluster_id_is_22_characters_whose_last_one_holds_two_bits() {
        for _ in 0..1_000 {
            let id = super::cluster_id();
            assert_eq!(id.len(), 22);
            assert!(["A", "Q", "g", "w"].iter().any(|last| id.ends_with(last)), "{id}");
        }
    }
}
