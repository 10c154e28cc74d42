//! Where Kafka and the databases are: flags, else environment, else `endpoints.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use auditor::door::Redis;
use clap::Args;
use kafka_cluster::{Cluster, Security};
use messaging::{GroupPosition, LogReader, ParkedRecord, ParkingKey, Publisher};
use order_orchestrator::SagaReader;
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Mutex;

use crate::failure::{Failure, in_full};

/// The name to Kafka and PostgreSQL.
const NAME: &str = "sagactl";
/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);

/// Every service that consumes; each has databases of its own.
pub(crate) const SERVICES: [&str; 4] = ["orchestrator", "stock", "payment", "api"];

/// Databases that let us in, by service.
type Pools = Arc<Mutex<BTreeMap<String, Vec<PgPool>>>>;

/// How servers are found.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Servers")]
pub(crate) struct Servers {
    /// File that `firstcome up` leaves in its data folder, `FIRSTCOME_DATA_DIR` or .firstcome
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value_os_t = tool_kit::endpoints_file(),
        env = "SAGACTL_ENDPOINTS"
    )]
    endpoints: PathBuf,
    /// Kafka, instead of the file's
    #[arg(long, global = true, value_name = "HOST:PORT", env = "SAGACTL_KAFKA")]
    kafka: Option<String>,
    /// TOML file that says how Kafka lets us in, as a service's table kafka_security does; instead of what the other file says
    #[arg(long, global = true, value_name = "FILE", env = "SAGACTL_KAFKA_SECURITY")]
    kafka_security: Option<PathBuf>,
    /// A service's database (orchestrator, stock, payment, api), instead of the file's; repeatable
    #[arg(
        long = "database",
        global = true,
        value_name = "SERVICE=URL",
        env = "SAGACTL_DATABASES",
        value_delimiter = ' ',
        hide_env_values = true
    )]
    databases: Vec<Database>,
    /// Redis, instead of the file's; for the audit
    #[arg(long, global = true, value_name = "URL", env = "SAGACTL_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// PEM file of the authority that signed the certificate of a Redis at rediss://; without it the system's
    #[arg(long, global = true, value_name = "FILE", env = "SAGACTL_REDIS_CA")]
    redis_ca: Option<PathBuf>,
    #[arg(skip)]
    pools: Pools,
}

/// `SERVICE=URL`.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    service: String,
    url: String,
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((service, url)) if SERVICES.contains(&service) && !url.is_empty() => {
                Ok(Self { service: service.to_owned(), url: url.to_owned() })
            }
            _ => Err(format!("SERVICE=URL is needed, with a service of {}", SERVICES.join(", "))),
        }
    }
}

/// What of `endpoints.json` is needed here.
#[derive(Debug, Deserialize)]
struct Endpoints {
    kafka: String,
    #[serde(default)]
    kafka_security: Security,
    #[serde(default)]
    redis: Option<String>,
    postgres: BTreeMap<String, Vec<String>>,
}

impl Servers {
    /// Redis, if a flag, the environment or the file names one.
    pub(crate) fn redis(&self) -> Result<Option<Redis>, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                Failure::usage(format!("--redis-ca {} can't be read: {error}", path.display()))
            })
        };
        let authority = self.redis_ca.as_ref().map(read).transpose()?;
        let url = self.redis.clone().or_else(|| self.file("Redis").ok()?.redis);
        Ok(url.map(|url| Redis::new(url, authority)))
    }

    fn file(&self, wanted: &str) -> Result<Endpoints, Failure> {
        let path = self.endpoints.display();
        let text = std::fs::read_to_string(&self.endpoints).map_err(|error| {
            Failure::away(format!(
                "{wanted} is not known: {path} can't be read ({error}); start the system, or name the servers with --endpoints, \
                 --kafka and --database"
            ))
        })?;
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{path} is not right: {error}")))
    }

    /// Which Kafka, and how it lets us in.
    pub(crate) fn cluster(&self) -> Result<Cluster, Failure> {
        let security = self.kafka_security.as_deref().map(security).transpose()?;
        match &self.kafka {
            Some(kafka) => Ok(Cluster::new(kafka, &security.unwrap_or_default())),
            None => {
                let file = self.file("Kafka")?;
                Ok(Cluster::new(&file.kafka, &security.unwrap_or(file.kafka_security)))
            }
        }
    }

    fn urls(&self, service: &str) -> Result<Vec<String>, Failure> {
        let named = self.databases.iter().filter(|database| database.service == service);
        let named: Vec<String> = named.map(|database| database.url.clone()).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let found = self.file(&format!("the {service} database"))?.postgres.remove(service);
        found.filter(|urls| !urls.is_empty()).ok_or_else(|| {
            Failure::usage(format!("{} names no database of {service}", self.endpoints.display()))
        })
    }

    /// The databases of a service, opened once. Whatever role the URL names: nothing can be changed through them.
    pub(crate) async fn databases(&self, service: &str) -> Result<Vec<PgPool>, Failure> {
        let mut opened = self.pools.lock().await;
        if let Some(pools) = opened.get(service) {
            return Ok(pools.clone());
        }
        let mut pools = Vec::new();
        for url in self.urls(service)? {
            pools.push(looking_on(&url, service).await?);
        }
        opened.insert(service.to_owned(), pools.clone());
        Ok(pools)
    }

    /// What each service has set aside, with `key` only under that one.
    pub(crate) async fn parked(
        &self,
        key: Option<&ParkingKey>,
    ) -> Result<Vec<(&'static str, ParkedRecord)>, Failure> {
        let mut found = Vec::new();
        for service in SERVICES {
            for pool in self.databases(service).await? {
                let mut connection = pool.acquire().await.map_err(|error| failed(service, &error))?;
                let parked = messaging::parked(&mut connection, key).await;
                let parked = parked.map_err(|error| failed(service, &error))?;
                found.extend(parked.into_iter().map(|parked| (service, parked)));
            }
        }
        Ok(found)
    }

    /// How far the consumers of a service have come.
    pub(crate) async fn positions(&self, service: &str) -> Result<Vec<GroupPosition>, Failure> {
        let mut positions = Vec::new();
        for pool in self.databases(service).await? {
            let mut connection = pool.acquire().await.map_err(|error| failed(service, &error))?;
            let found = messaging::positions(&mut connection).await;
            positions.extend(found.map_err(|error| failed(service, &error))?);
        }
        Ok(positions)
    }

    /// A snapshot of each of the orchestrator's databases.
    pub(crate) async fn sagas(&self) -> Result<Vec<SagaReader>, Failure> {
        let mut readers = Vec::new();
        for pool in self.databases("orchestrator").await? {
            readers.push(SagaReader::open(&pool).await?);
        }
        Ok(readers)
    }

    /// A reader of logs, once Kafka has answered.
    pub(crate) fn log(&self) -> Result<LogReader, Failure> {
        let cluster = self.cluster()?;
        let reader = LogReader::new(&cluster)?;
        reader.cluster_id().map_err(|error| {
            Failure::away(format!("Kafka at {} does not answer: {error}", cluster.brokers()))
        })?;
        Ok(reader)
    }

    /// A producer, once Kafka has answered.
    pub(crate) async fn publisher(&self) -> Result<Publisher, Failure> {
        let cluster = self.cluster()?;
        let publisher = Publisher::giving_up_after(&cluster, NAME, Duration::from_secs(10))?;
        for _try in 0..3 {
            if publisher.reachable().await.is_ok() {
                return Ok(publisher);
            }
        }
        Err(Failure::away(format!("Kafka at {} does not answer", cluster.brokers())))
    }
}

/// What a file says about how Kafka lets us in.
fn security(path: &Path) -> Result<Security, Failure> {
    Security::read(path).map_err(|error| Failure::usage(in_full(&error)))
}

fn failed(service: &str, error: &sqlx::Error) -> Failure {
    Failure::away(format!("the {service} database failed: {error}"))
}

async fn looking_on(url: &str, service: &str) -> Result<PgPool, Failure> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Failure::usage(format!("the url of the {service} database is none: {error}")))?
        .application_name(NAME)
        .options([("default_transaction_read_only", "on"), ("idle_in_transaction_session_timeout", "0")]);
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(CONNECT).connect_with(options);
    pool.await.map_err(|error| {
        Failure::away(format!("the {service} database at {place} does not let us in: {error}"))
    })
}
