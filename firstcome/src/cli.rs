//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kafka_cluster::Security;
use serde::Deserialize;
use uuid::Uuid;

use crate::home::Home;
use crate::overrides::Override;
use crate::services::Replicas;
use tool_kit::duration;

/// The whole of Firstcome on one machine.
#[derive(Debug, Parser)]
#[command(name = "firstcome", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Kafka, PostgreSQL, Redis and all services, and print what to open
    Up(Up),
    /// Stop what `up` started; data is kept
    Down(DataDir),
    /// Delete all data of a stopped system
    Reset(Reset),
    /// Say what runs, what is ready and what is missing; exit code 1 unless all is ready
    Status(Status),
    /// Print an access token for development
    Token(Token),
    /// Hold a flash sale over HTTP against the running system and check what came of it
    Demo(Demo),
    /// Make the topics in a Kafka of yours, or check those that are there
    Topics(Topics),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DataDir {
    /// Folder with data, logs, keys and endpoints.json
    #[arg(long, value_name = "DIR", default_value = ".firstcome", env = "FIRSTCOME_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

impl DataDir {
    pub(crate) fn home(&self) -> Home {
        Home::new(&self.data_dir)
    }
}

/// How a Kafka of yours lets us in.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KafkaSecurity {
    /// TOML file that says how your Kafka lets us in: what a service's settings have in their table kafka_security
    #[arg(long = "kafka-security", value_name = "FILE", id = "kafka_security")]
    file: Option<PathBuf>,
}

impl KafkaSecurity {
    /// What the file says; everybody is let in without one.
    pub(crate) fn read(&self) -> anyhow::Result<Security> {
        let read = self.file.as_deref().map(Security::read).transpose()?;
        Ok(read.unwrap_or_default())
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Return once everything is ready, and leave it running
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// A process for each service, started again when one dies
    #[arg(long)]
    pub(crate) separate: bool,
    /// Port of the (first) api on 127.0.0.1; 0 takes a free one [default: 8080]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Use your Kafka instead of a private one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    #[command(flatten)]
    pub(crate) kafka_security: KafkaSecurity,
    /// Use your PostgreSQL; databases orchestrator, stock, payment and api are made there if missing
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// Use your Redis
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Authority that signed the certificate of a Redis at rediss://; without it the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) redis_ca: Option<PathBuf>,
    /// Change a policy or the simulated provider, e.g. day=10s, pay_within=1m, provider.decline=0.5; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<Override>,
    /// Run several of a service, e.g. api=2; repeatable
    #[arg(long, value_name = "SERVICE=N")]
    pub(crate) replicas: Vec<Replicas>,
    /// Partitions of topics that are made now [default: as many as a worker has replicas, or databases]
    #[arg(long)]
    pub(crate) partitions: Option<i32>,
    /// Databases of each worker, named like the first one with _2, _3 ... behind; partitions made now are spread over
    /// them. Give the same number at every start [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) databases: Option<u8>,
    /// Heap of the private Kafka, MiB [default: 512]
    #[arg(long, value_name = "MIB")]
    pub(crate) kafka_heap: Option<u32>,
    /// Let the private Kafka compile quickly rather than well: starts sooner, for tests
    #[arg(long)]
    pub(crate) quick: bool,
    /// Register no demo catalogue
    #[arg(long)]
    pub(crate) no_catalogue: bool,
    /// TOML file with any of these options (long names, `_` for `-`), and a table `set`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What may stand in the file given by `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UpFile {
    separate: bool,
    port: Option<u16>,
    kafka: Option<String>,
    postgres: Option<String>,
    kafka_security: Option<PathBuf>,
    redis: Option<String>,
    redis_ca: Option<PathBuf>,
    partitions: Option<i32>,
    databases: Option<u8>,
    kafka_heap: Option<u32>,
    no_catalogue: bool,
    set: toml::Table,
    replicas: toml::Table,
}

impl Up {
    /// Takes from the file what the command line does not say.
    pub(crate) fn with_file(mut self) -> anyhow::Result<Self> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: UpFile =
            toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
        self.separate |= file.separate;
        self.no_catalogue |= file.no_catalogue;
        self.port = self.port.or(file.port);
        self.kafka = self.kafka.or(file.kafka);
        self.postgres = self.postgres.or(file.postgres);
        self.kafka_security.file = self.kafka_security.file.or(file.kafka_security);
        self.redis = self.redis.or(file.redis);
        self.redis_ca = self.redis_ca.or(file.redis_ca);
        self.partitions = self.partitions.or(file.partitions);
        self.databases = self.databases.or(file.databases);
        self.kafka_heap = self.kafka_heap.or(file.kafka_heap);
        // The command line comes last, because the last one of a name wins.
        let mut set = Vec::new();
        for pair in pairs("", &file.set) {
            set.push(pair.parse::<Override>().with_context(|| format!("in {}", path.display()))?);
        }
        set.append(&mut self.set);
        self.set = set;
        let mut replicas = Vec::new();
        for pair in pairs("", &file.replicas) {
            replicas.push(pair.parse::<Replicas>().with_context(|| format!("in {}", path.display()))?);
        }
        replicas.append(&mut self.replicas);
        self.replicas = replicas;
        Ok(self)
    }
}

/// `NAME=VALUE` of each entry, nested tables joined by dots.
fn pairs(prefix: &str, table: &toml::Table) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(below) => all.extend(pairs(&format!("{prefix}{name}."), below)),
            toml::Value::String(text) => all.push(format!("{prefix}{name}={text}")),
            other => all.push(format!("{prefix}{name}={other}")),
        }
    }
    all
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Print one JSON value
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// The customer's id
    #[arg(long, value_name = "UUID")]
    pub(crate) customer: Uuid,
    /// A role; repeatable [default: customer]
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// How long it is valid
    #[arg(long, value_parser = duration::parse, default_value = "1h")]
    pub(crate) ttl: Duration,
    /// An e-mail address to put into it
    #[arg(long)]
    pub(crate) email: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// How many customers want one
    #[arg(long, default_value_t = 1000)]
    pub(crate) buyers: u32,
    /// How many there are
    #[arg(long, default_value_t = 100)]
    pub(crate) units: u32,
    /// Share of payments that are abandoned
    #[arg(long, default_value_t = 0.2)]
    pub(crate) abandon: f64,
    /// Share of the others that are declined
    #[arg(long, default_value_t = 0.2)]
    pub(crate) decline: f64,
    /// Requests under way at once
    #[arg(long, default_value_t = 256)]
    pub(crate) concurrency: usize,
    /// How long everything may take
    #[arg(long, value_parser = duration::parse, default_value = "3m")]
    pub(crate) within: Duration,
    /// Do not compare the databases afterwards
    #[arg(long)]
    pub(crate) no_audit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Topics {
    /// Your Kafka
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: String,
    #[command(flatten)]
    pub(crate) kafka_security: KafkaSecurity,
    /// Partitions of each topic, fixed once it is made: as many replicas of a service can work at once [default: those
    /// that are there, else 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) partitions: Option<i32>,
    /// Brokers that hold a copy of each record; a majority of them must have it before it is acknowledged
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=5))]
    pub(crate) replication: i32,
}
