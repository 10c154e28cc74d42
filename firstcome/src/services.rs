//! The four services: their settings, and how each is run in this process.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Context;
use local_stack::Stack;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use toml::{Table, Value};

use crate::cli::Up;
use crate::home::Home;
use crate::overrides::{self, Target};

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    OrderOrchestrator,
    StockWorker,
    PaymentWorker,
    Api,
}

impl Service {
    pub(crate) const ALL: [Self; 4] =
        [Self::OrderOrchestrator, Self::StockWorker, Self::PaymentWorker, Self::Api];

    /// Its binary's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OrderOrchestrator => "order-orchestrator",
            Self::StockWorker => "stock-worker",
            Self::PaymentWorker => "payment-worker",
            Self::Api => "api",
        }
    }

    /// Its database's name.
    pub(crate) const fn database(self) -> &'static str {
        match self {
            Self::OrderOrchestrator => "orchestrator",
            Self::StockWorker => "stock",
            Self::PaymentWorker => "payment",
            Self::Api => "api",
        }
    }

    /// The names of its databases, home first. The api's read model stays in one.
    pub(crate) fn databases(self, options: &Up) -> Vec<String> {
        let count = match self {
            Self::OrderOrchestrator | Self::StockWorker | Self::PaymentWorker => {
                options.databases.unwrap_or(1)
            }
            Self::Api => 1,
        };
        let further = (2..=count).map(|number| format!("{}_{number}", self.database()));
        std::iter::once(self.database().to_owned()).chain(further).collect()
    }

    /// Runs it in this process until `shutdown`.
    pub(crate) async fn run(self, settings: Table, shutdown: CancellationToken) -> anyhow::Result<()> {
        match self {
            Self::OrderOrchestrator => order_orchestrator::run(typed(settings)?, shutdown).await,
            Self::StockWorker => stock_worker::run(typed(settings)?, shutdown).await,
            Self::PaymentWorker => payment_worker::run(typed(settings)?, shutdown).await,
            Self::Api => api::run(typed(settings)?, shutdown).await,
        }
    }

    /// Whether the settings are such that the service would take them.
    fn check(self, settings: Table) -> anyhow::Result<()> {
        match self {
            Self::OrderOrchestrator => typed::<order_orchestrator::Settings>(settings).map(drop),
            Self::StockWorker => typed::<stock_worker::Settings>(settings).map(drop),
            Self::PaymentWorker => typed::<payment_worker::Settings>(settings).map(drop),
            Self::Api => typed::<api::Settings>(settings).map(drop),
        }
    }
}

fn typed<T: DeserializeOwned>(settings: Table) -> anyhow::Result<T> {
    Value::Table(settings).try_into().context("settings are wrong")
}

/// `SERVICE=N` of `--replicas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    service: Service,
    count: u16,
}

impl FromStr for Replicas {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, count) = text.split_once('=').with_context(|| format!("{text:?} is not SERVICE=N"))?;
        let service = Service::ALL.into_iter().find(|service| service.name() == name);
        let service = service.with_context(|| {
            format!("there is no service {name:?}; there are {}", Service::ALL.map(Service::name).join(", "))
        })?;
        let count = count.parse().ok().filter(|count| (1..=16).contains(count));
        Ok(Self { service, count: count.with_context(|| format!("{name}: 1 to 16 replicas"))? })
    }
}

/// One process's worth of a service.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) service: Service,
    /// `api-1`
    pub(crate) name: String,
    /// Public address, for an api.
    pub(crate) listen: Option<String>,
    /// `HOST:PORT` of health and metrics.
    pub(crate) admin: String,
    pub(crate) settings: Table,
}

impl Replica {
    pub(crate) fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }
}

fn counts(options: &Up) -> BTreeMap<Service, u16> {
    let mut counts: BTreeMap<Service, u16> = Service::ALL.into_iter().map(|service| (service, 1)).collect();
    counts.extend(options.replicas.iter().map(|asked| (asked.service, asked.count)));
    counts
}

/// As many partitions as replicas and databases that are to share the work. On one machine a partition more costs a fifth
/// of the CPU and gains nothing (docs/performance.md).
pub(crate) fn partitions(options: &Up) -> i32 {
    let workers = counts(options).into_iter().filter(|(service, _)| *service != Service::Api);
    let databases = u16::from(options.databases.unwrap_or(1));
    workers.map(|(_, count)| count).max().unwrap_or(1).max(databases).into()
}

/// Settings of every replica. The first api listens on `api_port`, all else on free ports.
pub(crate) fn plan(home: &Home, stack: &Stack, api_port: u16, options: &Up) -> anyhow::Result<Vec<Replica>> {
    let counts = counts(options);
    // An admin port each, and for each further api a public one.
    let apis = counts.get(&Service::Api).map_or(0, |count| usize::from(*count));
    let wanted = counts.values().map(|count| usize::from(*count)).sum::<usize>() + apis.saturating_sub(1);
    let mut ports = local_stack::free_ports(wanted, &[api_port])?.into_iter();
    let mut port = || ports.next().context("too few ports were chosen");

    let mut all = Vec::new();
    for (service, count) in counts {
        for number in 1..=count {
            let name = format!("{}-{number}", service.name());
            let admin = format!("127.0.0.1:{}", port()?);
            let mut settings = Table::new();
            let security = Value::try_from(stack.cluster().security())?;
            settings.insert("kafka_security".to_owned(), security);
            let more = service.databases(options).into_iter().skip(1);
            let more: Vec<Value> = more.map(|name| Value::String(stack.postgres_url(&name))).collect();
            if !more.is_empty() {
                settings.insert("more_database_urls".to_owned(), Value::Array(more));
            }
            let mut put =
                |field: &str, value: String| settings.insert(field.to_owned(), Value::String(value));
            put("brokers", stack.kafka());
            put("database_url", stack.postgres_url(service.database()));
            put("admin_listen", admin.clone());
            // A replica that comes back gets its partitions at once.
            put("instance_id", name.clone());
            let mut listen = None;
            match service {
                Service::Api => {
                    let port = if number == 1 { api_port } else { port()? };
                    let address = format!("127.0.0.1:{port}");
                    put("listen", address.clone());
                    put("keys_file", home.keys().display().to_string());
                    let redis = vec![Value::String(stack.redis_url())];
                    settings.insert("redis_urls".to_owned(), Value::Array(redis));
                    if let Some(file) = &options.redis_ca {
                        let file = Value::String(file.display().to_string());
                        settings.insert("redis_ca_file".to_owned(), file);
                    }
                    let mut mail = Table::new();
                    mail.insert(
                        "from".to_owned(),
                        Value::String("Firstcome <orders@firstcome.invalid>".to_owned()),
                    );
                    mail.insert("mailbox".to_owned(), Value::String(home.mailbox().display().to_string()));
                    settings.insert("mail".to_owned(), Value::Table(mail));
                    overrides::apply(&options.set, Target::Policy, &mut settings);
                    listen = Some(address);
                }
                Service::PaymentWorker => overrides::apply(&options.set, Target::Provider, &mut settings),
                Service::OrderOrchestrator | Service::StockWorker => {}
            }
            service.check(settings.clone()).with_context(|| format!("{name} would not start"))?;
            all.push(Replica { service, name, listen, admin, settings });
        }
    }
    Ok(all)
}
