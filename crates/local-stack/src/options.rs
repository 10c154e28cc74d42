//! What a stack is made of.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kafka_cluster::Security;

/// One of the three servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The broker.
    Kafka,
    /// The database server.
    Postgres,
    /// The cache.
    Redis,
}

impl Part {
    /// All of them, in the order they are worth starting.
    pub const ALL: [Self; 3] = [Self::Kafka, Self::Postgres, Self::Redis];

    /// Lower-case name, as in file names.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "Kafka",
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        })
    }
}

/// Who runs a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// This stack, on this loopback port, or on a free one that is remembered for the next start.
    Own {
        /// The port asked for.
        port: Option<u16>,
    },
    /// Somebody else: `HOST:PORT[,HOST:PORT]` for Kafka, a URL for the others. It is never started or stopped.
    Yours(String),
}

impl Server {
    /// Run by the stack on a free port.
    pub const OWN: Self = Self::Own { port: None };
}

/// How the broker's JVM compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jit {
    /// First tier only: starts sooner, ends slower. For tests.
    Quick,
    /// All tiers. For everything that is measured.
    Full,
}

/// A second door of the private broker, for those who are to be let in as they would be by a cluster in production: TLS,
/// SCRAM-SHA-512, and nothing that no access control list grants. The first one stays open, to an administrator.
#[derive(Debug, Clone)]
pub struct SecuredListener {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// PEM file with the broker's key (PKCS #8) and certificate.
    pub key_store: PathBuf,
    /// Users and their passwords; made when the data folder is.
    pub accounts: Vec<(String, String)>,
}

/// A second door of the private broker, of which clients are told another port: that of a relay between them and the broker.
#[derive(Debug, Clone, Copy)]
pub struct RelayedListener {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The port on 127.0.0.1 that clients are told.
    pub advertised: u16,
}

/// Told what is being done while a stack starts, in a few words each.
pub type Progress = Arc<dyn Fn(Part, &str) + Send + Sync>;

/// How to start a stack.
#[derive(Clone)]
pub struct StackOptions {
    /// Where data, logs and pid files live. Made if missing. One running stack at a time owns it.
    pub dir: PathBuf,
    /// The broker.
    pub kafka: Server,
    /// The database server; `Yours` is a URL whose database name is replaced.
    pub postgres: Server,
    /// The cache.
    pub redis: Server,
    /// Ports that the caller uses itself, perhaps later: the servers get others.
    pub other_ports: Vec<u16>,
    /// Heap of the broker, MiB.
    pub kafka_heap_mib: u32,
    /// How the broker's JVM compiles.
    pub kafka_jit: Jit,
    /// How a Kafka of yours lets us in.
    pub kafka_security: Security,
    /// A second listener of a private Kafka.
    pub kafka_secured: Option<SecuredListener>,
    /// Another listener of a private Kafka.
    pub kafka_relayed: Option<RelayedListener>,
    /// Databases made if missing.
    pub databases: Vec<String>,
    /// How long each part may take to become ready. Downloading Kafka's jars is not part of it.
    pub start_deadline: Duration,
    /// Told what is being done.
    pub progress: Progress,
}

impl fmt::Debug for StackOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl StackOptions {
    /// The databases of the four services.
    pub const DATABASES: [&'static str; 4] = ["orchestrator", "stock", "payment", "api"];

    /// All three parts run by the stack, on free ports, with the services' databases.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            kafka: Server::OWN,
            postgres: Server::OWN,
            redis: Server::OWN,
            other_ports: Vec::new(),
            kafka_heap_mib: 512,
            kafka_jit: Jit::Full,
            kafka_security: Security::default(),
            kafka_secured: None,
            kafka_relayed: None,
            databases: Self::DATABASES.map(str::to_owned).to_vec(),
            start_deadline: Duration::from_secs(90),
            progress: Arc::new(|_, _| ()),
        }
    }

    /// The same with a broker that starts sooner and needs less memory.
    #[must_use]
    pub fn for_tests(dir: impl Into<PathBuf>) -> Self {
        Self { kafka_heap_mib: 256, kafka_jit: Jit::Quick, ..Self::new(dir) }
    }
}
