//! Everything that is done to the system, and how.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local_stack::{GuardedCommand, Part, Signal};
use messaging::{KafkaError, LogReader, Output, Publisher};
use schemas::Topic;
use serde_json::json;
use system_tests::{SOON, System, binary};
use uuid::Uuid;

use crate::disk;
use crate::links::{Link, Links};

/// A consumer's session times out after 6 s.
const PAST_THE_SESSION: Duration = Duration::from_secs(8);
/// How long a link is bad.
const BAD_LINK: Duration = Duration::from_secs(5);
/// In every record that nobody can read; such a one is not published again.
const POISON: &str = "poison";
/// Records per partition that are published a second time.
const AGAIN: i64 = 500;

pub(crate) const SERVICES: [&str; 4] = ["order-orchestrator", "stock-worker", "payment-worker", "api"];

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process of this consumer dies at this place, which it comes to under load.
    Crash { who: &'static str, place: &'static str },
    /// It dies there while it takes partitions over, after the first replica of a service was killed.
    CrashAtStart { service: &'static str, who: &'static str, place: &'static str },
    /// It dies there after it was asked to end.
    CrashAtEnd { service: &'static str, who: &'static str },
    /// `kill -9`.
    Kill { service: &'static str },
    /// Asked to end, in good order.
    End { service: &'static str },
    /// Frozen until others have its partitions, then thawed.
    Zombie { service: &'static str },
    /// One replica more for some seconds, then killed.
    Guest { service: &'static str },
    /// A server is killed.
    KillServer(Part),
    /// A server is frozen for some seconds.
    FreezeServer(Part),
    /// Every connection to PostgreSQL is cut.
    CutConnections,
    /// Redis loses everything.
    EmptyRedis,
    /// The disk is full for this service's database.
    FullDisk { service: &'static str },
    /// The way to a server is bad for some seconds.
    BadLink { part: Part, link: Link },
    /// The end of a topic is published again.
    Again(Topic),
    /// A record that nobody can read.
    Poison { topic: Topic, kind: Poison },
    /// Many of these, one per second.
    Many { seed: u64 },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    /// No JSON.
    Broken,
    /// A message that nobody knows.
    UnknownType,
    /// A message of a version to come.
    FutureVersion,
    /// Almost 1 MiB.
    Large,
    /// Without a key.
    Keyless,
}

/// Places in the runtime that every consumer passes under load, and those it passes when it takes over.
const UNDER_LOAD: [&str; 3] = ["before-commit", "before-publish", "published"];
const TAKING_OVER: [&str; 3] = ["epoch-raised", "taken-over", "begun"];

/// Every cell of the matrix with its name.
pub(crate) fn matrix() -> Vec<(String, Fault)> {
    let mut cells = Vec::new();
    for service in SERVICES {
        let who = if service == "api" { "api-order-events" } else { service };
        for place in UNDER_LOAD {
            // A read model publishes nothing.
            if service != "api" || place == "before-commit" {
                cells.push((format!("{service} dies: {place}"), Fault::Crash { who, place }));
            }
        }
        for place in TAKING_OVER {
            let fault = Fault::CrashAtStart { service, who, place };
            cells.push((format!("{service} dies taking over: {place}"), fault));
        }
        let migrating = Fault::CrashAtStart { service, who: service, place: "migrating" };
        cells.push((format!("{service} dies in a migration"), migrating));
        cells.push((format!("{service} dies while it ends"), Fault::CrashAtEnd { service, who }));
        cells.push((format!("{service}: kill -9"), Fault::Kill { service }));
        cells.push((format!("{service}: ended and started"), Fault::End { service }));
        cells.push((format!("{service}: frozen past its session, thawed"), Fault::Zombie { service }));
        if service != "api" {
            cells.push((format!("{service}: a replica joins and is killed"), Fault::Guest { service }));
        }
    }
    for place in ["order-kept", "order-published"] {
        cells.push((format!("api dies: {place}"), Fault::Crash { who: "api", place }));
    }
    for place in ["before-charge", "charged"] {
        let fault = Fault::Crash { who: "payment-worker", place };
        cells.push((format!("payment-worker dies: {place}"), fault));
    }
    for part in Part::ALL {
        cells.push((format!("{part}: kill -9"), Fault::KillServer(part)));
        cells.push((format!("{part}: frozen for 3 s"), Fault::FreezeServer(part)));
    }
    cells.push(("PostgreSQL: every connection cut".to_owned(), Fault::CutConnections));
    for service in ["orchestrator", "stock", "payment"] {
        cells.push((format!("PostgreSQL: no space for {service}"), Fault::FullDisk { service }));
    }
    for part in Part::ALL {
        for (link, name) in Link::FAULTS {
            cells.push((format!("{part}: {name}"), Fault::BadLink { part, link }));
        }
    }
    cells.push(("Redis: emptied".to_owned(), Fault::EmptyRedis));
    for topic in [Topic::OrderSaga, Topic::StockCommands, Topic::PaymentCommands, Topic::OrderEvents] {
        cells.push((format!("{}: its end published again", topic.name()), Fault::Again(topic)));
    }
    for topic in [Topic::OrderSaga, Topic::StockCommands, Topic::PaymentCommands] {
        for kind in
            [Poison::Broken, Poison::UnknownType, Poison::FutureVersion, Poison::Large, Poison::Keyless]
        {
            cells.push((format!("{}: poison, {kind:?}", topic.name()), Fault::Poison { topic, kind }));
        }
    }
    for seed in 1..=3 {
        cells.push((format!("everything at random, {seed}"), Fault::Many { seed }));
    }
    cells
}

/// `count` of them, chosen by the seed.
pub(crate) fn selection(seed: u64, count: usize) -> Vec<(String, Fault)> {
    let mut cells = matrix();
    cells.sort_by_key(|(name, _)| {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        hasher.finish()
    });
    cells.truncate(count);
    cells
}

/// Whoever does all that.
pub(crate) struct Chaos<'a> {
    pub(crate) system: &'a System,
    /// Where crashes are asked for.
    pub(crate) folder: PathBuf,
    /// Relays before the servers, if there are any.
    pub(crate) links: Option<&'a Links>,
    /// The product that most customers want.
    pub(crate) hot_sku: String,
}

impl Chaos<'_> {
    /// Returns when it is done: the process has died, the server was thawed.
    pub(crate) async fn strike(&self, fault: Fault) {
        match fault {
            Fault::Crash { who, place } => self.crashed(&self.ask(who, place)).await,
            Fault::CrashAtStart { service, who, place } => {
                let asked = self.ask(who, place);
                self.signal(service, Signal::Kill).await;
                self.crashed(&asked).await;
            }
            Fault::CrashAtEnd { service, who } => {
                let asked = self.ask(who, "stopping");
                self.signal(service, Signal::Terminate).await;
                self.crashed(&asked).await;
            }
            Fault::Kill { service } => self.signal(service, Signal::Kill).await,
            Fault::End { service } => self.signal(service, Signal::Terminate).await,
            Fault::Zombie { service } => {
                let pid = self.pid(service).await;
                Signal::Stop.send(pid).unwrap();
                tokio::time::sleep(PAST_THE_SESSION).await;
                Signal::Continue.send(pid).unwrap();
            }
            Fault::Guest { service } => self.guest(service).await,
            Fault::KillServer(part) => self.system.signal_part(part, Signal::Kill),
            Fault::FreezeServer(part) => {
                self.system.signal_part(part, Signal::Stop);
                tokio::time::sleep(Duration::from_secs(3)).await;
                self.system.signal_part(part, Signal::Continue);
            }
            Fault::CutConnections => {
                let database = self.system.database("api").await;
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
                sqlx::raw_sql(cut).execute(&database).await.unwrap();
            }
            Fault::EmptyRedis => {
                let url = self.system.endpoints()["redis"].as_str().unwrap().to_owned();
                let emptied = Command::new("redis-cli").args(["-u", &url, "FLUSHALL"]).output().unwrap();
                assert!(emptied.status.success(), "{emptied:?}");
            }
            Fault::FullDisk { service } => disk::is_full(self.system, service).await,
            Fault::BadLink { part, link } => {
                let links = self.links.unwrap();
                links.set(part, link);
                tokio::time::sleep(BAD_LINK).await;
                links.set(part, Link::Whole);
            }
            Fault::Again(topic) => self.again(topic).await,
            Fault::Poison { topic, kind } => self.poison(topic, kind).await,
            Fault::Many { seed } => {
                let one = |(_, fault): &(String, Fault)| {
                    matches!(
                        fault,
                        Fault::Kill { .. }
                            | Fault::KillServer(_)
                            | Fault::End { .. }
                            | Fault::CutConnections
                            | Fault::EmptyRedis
                            | Fault::Again(_)
                    )
                };
                for (_, fault) in selection(seed, usize::MAX).iter().filter(|cell| one(cell)).take(8) {
                    Box::pin(self.strike(*fault)).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn ask(&self, who: &str, place: &str) -> PathBuf {
        let file = self.folder.join(format!("{who}.{place}"));
        fs::write(&file, "").unwrap();
        file
    }

    /// The file is taken away by the process that dies.
    async fn crashed(&self, asked: &Path) {
        testkit::eventually(
            Duration::from_secs(60),
            &format!("{} is reached", asked.display()),
            async || {
                if asked.exists() { Err("nobody came there") } else { Ok(()) }
            },
        )
        .await;
    }

    async fn pid(&self, service: &str) -> u32 {
        let name = format!("{service}-1");
        testkit::eventually(Duration::from_secs(60), &format!("{name} runs"), async || {
            self.system.service_pid(&name).ok_or("it does not")
        })
        .await
    }

    async fn signal(&self, service: &str, signal: Signal) {
        signal.send(self.pid(service).await).unwrap();
    }

    /// The settings are those of the first replica, with another name and port.
    async fn guest(&self, service: &str) {
        let run = self.system.data().join("run");
        let settings = fs::read_to_string(run.join(format!("{service}-1.toml"))).unwrap();
        let mut settings: toml::Table = settings.parse().unwrap();
        let port = local_stack::free_port().unwrap();
        settings.insert("admin_listen".to_owned(), format!("127.0.0.1:{port}").into());
        settings.insert("instance_id".to_owned(), format!("{service}-guest").into());
        let file = self.folder.join(format!("{service}-guest.settings"));
        fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
        let log = self.folder.join(format!("{service}-guest.log"));
        let mut guest = GuardedCommand::new(binary(service), log).arg("--config").arg(file).spawn().unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        guest.end(Signal::Kill, Duration::from_secs(5)).await.unwrap();
    }

    async fn again(&self, topic: Topic) {
        // The broker may be coming back from another fault.
        let outputs = testkit::eventually(SOON, "the end of the topic is read", async || {
            let kafka = self.system.kafka();
            tokio::task::spawn_blocking(move || end_of(topic, &kafka)).await.unwrap()
        })
        .await;
        assert!(!outputs.is_empty(), "{topic:?} is empty");
        Publisher::new(&self.system.kafka(), "chaos").unwrap().publish(&outputs).await.unwrap();
    }

    /// Under a key of its own, but for the hot product's: there it must not delay anybody.
    async fn poison(&self, topic: Topic, kind: Poison) {
        let key = match topic {
            Topic::StockCommands => self.hot_sku.clone(),
            _ => Uuid::new_v4().to_string(),
        };
        let envelope = |name: &str, version: u32| {
            json!({"message_id": Uuid::new_v4(), "type": name, "version": version, "order_id": Uuid::new_v4(),
                "occurred_at": "2026-11-26T00:00:00.000Z", "data": {"is": POISON}})
            .to_string()
        };
        let known = match topic {
            Topic::StockCommands => "ReserveStock",
            Topic::PaymentCommands => "ChargePayment",
            _ => "PlaceOrder",
        };
        let value = match kind {
            Poison::Broken | Poison::Keyless => format!("{{\"message_id\": {POISON}"),
            Poison::UnknownType => envelope("PaintOrder", 1),
            Poison::FutureVersion => envelope(known, 99),
            Poison::Large => POISON.repeat(1_000_000 / POISON.len()),
        };
        let output = Output::raw(topic.name(), key, value.into_bytes()).parking_key(Uuid::new_v4());
        if kind == Poison::Keyless {
            self.append_without_key(topic, output.value());
        } else {
            Publisher::new(&self.system.kafka(), "chaos").unwrap().publish(&[output]).await.unwrap();
        }
        testkit::eventually(Duration::from_secs(30), "it is parked", async || match self.parked() {
            0 => Err("nothing is"),
            _ => Ok(()),
        })
        .await;
    }

    fn append_without_key(&self, topic: Topic, value: &[u8]) {
        let file = self.folder.join("record");
        fs::write(&file, value).unwrap();
        let kafka = self.system.kafka();
        let kcat = Command::new("kcat")
            .args(["-P", "-b", &kafka, "-t", topic.name(), "-p", "1"])
            .arg(&file)
            .output();
        assert!(kcat.as_ref().is_ok_and(|output| output.status.success()), "{kcat:?}");
    }

    /// Records that are set aside.
    pub(crate) fn parked(&self) -> u64 {
        self.system.sagactl(&["dead-letters", "list", "--json"]).json(0)["records"].as_u64().unwrap()
    }

    /// Gives up what is set aside.
    pub(crate) async fn discard(&self) {
        let discard = ["dead-letters", "discard", "--all", "--reason", "chaos", "--yes"];
        self.system.sagactl(&discard).expect(0);
        assert_eq!(self.parked(), 0);
    }
}

/// The last records of each partition, poison aside, as they would be written again.
fn end_of(topic: Topic, kafka: &str) -> Result<Vec<Output>, KafkaError> {
    let (reader, mut outputs) = (LogReader::new(kafka)?, Vec::new());
    for partition in 0..reader.partitions(topic.name())? {
        let (low, high) = reader.bounds(topic.name(), partition)?;
        reader.read(topic.name(), partition, low.max(high - AGAIN), high, |record| {
            if record.value.windows(POISON.len()).any(|part| part == POISON.as_bytes()) {
                return;
            }
            let output = Output::raw(topic.name(), "", record.value);
            let output = output.with_key(record.key.unwrap_or_default());
            let headers = record.headers.into_iter();
            outputs.push(headers.fold(output, |output, (name, value)| output.header(&name, value)));
        })?;
    }
    Ok(outputs)
}
