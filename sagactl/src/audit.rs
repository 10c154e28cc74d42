//! `audit`: a live system judged without a pause. Each database is read in one snapshot. What contradicts itself within one is
//! wrong. What contradicts another one may be on its way between them, so it is looked at again once everything that was
//! under way has arrived: only what is still there then, unchanged, is a violation.

mod sign;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use auditor::door::{DoorError, Redis};
use auditor::{Databases, Report, Units, Violation};
use domain_types::Timestamp;
use messaging::{Cluster, LogReader, wall_clock};
use schemas::Topic;
use serde::Serialize;
use sqlx::PgPool;

use crate::cli::Audit;
use crate::failure::{Failure, Verdict, in_full};
use crate::servers::Servers;
use crate::terminal::{Terminal, Tone, plain};

/// The most looks at what contradicts another database.
const LOOKS: u32 = 4;
/// How long what is under way may take to arrive.
const ARRIVES: Duration = Duration::from_secs(10);
/// From a command to what everybody sees: each has to come as far as its topic went when the one before had.
const WAY: [(&str, Consumer, Topic); 6] = [
    ("orchestrator", Consumer::Group(order_orchestrator::CONSUMER_GROUP), Topic::OrderSaga),
    ("stock", Consumer::Group(stock_worker::CONSUMER_GROUP), Topic::StockCommands),
    ("payment", Consumer::Group(payment_worker::CONSUMER_GROUP), Topic::PaymentCommands),
    ("orchestrator", Consumer::Group(order_orchestrator::CONSUMER_GROUP), Topic::OrderSaga),
    ("api", Consumer::OfApi("order-events"), Topic::OrderEvents),
    ("api", Consumer::OfApi("stock-levels"), Topic::StockLevels),
];

/// A consumer: the api's groups are named by a setting.
#[derive(Debug, Clone, Copy)]
enum Consumer {
    Group(&'static str),
    OfApi(&'static str),
}

/// Everything that is looked at.
struct Eyes {
    orchestrator: Vec<PgPool>,
    databases: Databases,
    cluster: Cluster,
    redis: Option<Redis>,
}

impl Eyes {
    async fn open(servers: &Servers) -> Result<Self, Failure> {
        let api = servers.databases("api").await?;
        let databases = Databases {
            stock: servers.databases("stock").await?,
            payment: servers.databases("payment").await?,
            api: api.first().cloned().ok_or_else(|| Failure::usage("there is no database of api"))?,
        };
        drop(servers.log()?);
        Ok(Self {
            orchestrator: servers.databases("orchestrator").await?,
            databases,
            cluster: servers.cluster()?,
            redis: servers.redis()?,
        })
    }

    fn pools(&self, service: &str) -> Vec<PgPool> {
        match service {
            "orchestrator" => self.orchestrator.clone(),
            "stock" => self.databases.stock.clone(),
            "payment" => self.databases.payment.clone(),
            _ => vec![self.databases.api.clone()],
        }
    }

    async fn look(&self) -> Result<Report, Failure> {
        let report = auditor::audit(&self.databases).await;
        report.map_err(|error| Failure::away(format!("the databases can't be audited: {error}")))
    }
}

/// What an audit says.
#[derive(Debug, Serialize)]
struct Audited {
    clean: bool,
    at: Timestamp,
    build: &'static str,
    /// Orders by state.
    orders: BTreeMap<&'static str, u64>,
    units: Units,
    charged: i64,
    refunded: i64,
    /// Lines of orders, holds and charges that were under way: not judged.
    on_their_way: usize,
    /// Turns that were compared; absent if the logs were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    turns: Option<Turns>,
    /// Orders whose way was followed through the logs; absent if they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    trails: Option<usize>,
    /// Skus that Redis knows; absent if it was not compared: none is named, something was under way, or it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<usize>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_away: Option<String>,
    settled_by_hand: Vec<uuid::Uuid>,
    violations: Vec<Violation>,
    /// What contradicts, while a service has not come far enough to tell.
    unconfirmed: Vec<Violation>,
    /// Who has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<String>,
    /// How often the databases were read.
    looks: u32,
    /// How far each service had come in the snapshots: `group topic/partition`.
    positions: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize)]
struct Turns {
    reserves: u64,
    tickets: u64,
    skus_without_promise: BTreeSet<String>,
}

/// What may not stay.
fn contradictions(report: &Report) -> BTreeSet<Violation> {
    let cross = report.violations.iter().filter(|violation| !violation.rests_on_one_database());
    let lost = report.unsettled.iter().filter(|unsettled| unsettled.rule == "not_projected");
    cross.chain(lost).cloned().collect()
}

async fn audit(eyes: &Eyes, with_logs: bool) -> Result<Audited, Failure> {
    let at = wall_clock();
    let mut report = eyes.look().await?;
    let (mut looks, mut behind) = (1, None);
    let mut open = contradictions(&report);
    while !open.is_empty() && looks < LOOKS && behind.is_none() {
        behind = arrive(eyes).await?;
        report = eyes.look().await?;
        looks += 1;
        let still = contradictions(&report);
        open.retain(|violation| still.contains(violation));
    }
    let certain = report.violations.iter().filter(|violation| violation.rests_on_one_database()).cloned();
    let mut violations: Vec<Violation> = certain.collect();
    let unconfirmed = match &behind {
        Some(_) => open.into_iter().collect(),
        None => {
            violations.extend(open);
            Vec::new()
        }
    };
    let on_their_way = report.unsettled.iter().filter(|unsettled| unsettled.rule == "on_its_way").count();
    let (mut turns, mut trails, mut redis, mut redis_away) = (None, None, None, None);
    if with_logs {
        let (served, followed) = logs(eyes, &mut violations).await?;
        (turns, trails) = (Some(served), Some(followed));
        if report.is_clean() {
            match door(eyes, &mut violations).await {
                Ok(compared) => redis = compared,
                Err(error) => redis_away = Some(in_full(&error)),
            }
        }
    }
    let place = |position: &messaging::GroupPosition| {
        format!("{} {}/{}", position.group, position.topic, position.partition)
    };
    Ok(Audited {
        clean: violations.is_empty() && unconfirmed.is_empty(),
        at,
        build: env!("CARGO_PKG_VERSION"),
        on_their_way,
        positions: report.positions.iter().map(|position| (place(position), position.next.0)).collect(),
        orders: report.orders,
        units: report.units,
        charged: report.charged,
        refunded: report.refunded,
        turns,
        trails,
        redis,
        redis_away,
        settled_by_hand: report.settled_by_hand,
        violations,
        unconfirmed,
        behind,
        looks,
    })
}

/// Who came first, and each order's way: what the logs alone say.
async fn logs(eyes: &Eyes, violations: &mut Vec<Violation>) -> Result<(Turns, usize), Failure> {
    let shown = auditor::trail::shown(&eyes.databases).await;
    let shown = shown.map_err(|error| Failure::away(format!("the api's database failed: {error}")))?;
    let cluster = eyes.cluster.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let turns = auditor::first_come::check_logs(cluster.clone())?;
        Ok((turns, auditor::trail::check_logs(cluster, &shown)?))
    });
    let checked = checked.await.map_err(|error| Failure::away(error.to_string()))?;
    let (turns, trails) =
        checked.map_err(|error: auditor::first_come::LogError| Failure::away(format!("{error}")))?;
    violations.extend(turns.violations);
    violations.extend(trails.violations);
    let (reserves, tickets) = (turns.reserves, turns.tickets);
    Ok((Turns { reserves, tickets, skus_without_promise: turns.skus_without_promise }, trails.orders))
}

/// Redis follows the stock: it is wrong where it does not come to agree. `None` if none is named.
async fn door(eyes: &Eyes, violations: &mut Vec<Violation>) -> Result<Option<usize>, DoorError> {
    let Some(redis) = &eyes.redis else { return Ok(None) };
    let deadline = Instant::now() + ARRIVES;
    loop {
        let door = auditor::door::check(redis, &eyes.databases).await?;
        if door.violations.is_empty() || Instant::now() > deadline {
            violations.extend(door.violations);
            return Ok(Some(door.skus));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until what is under way now has arrived everywhere; else says who is behind.
async fn arrive(eyes: &Eyes) -> Result<Option<String>, Failure> {
    for (service, consumer, topic) in WAY {
        let cluster = eyes.cluster.clone();
        let ends = tokio::task::spawn_blocking(move || ends(&cluster, topic)).await;
        let ends = ends.map_err(|error| Failure::away(error.to_string()))??;
        let deadline = Instant::now() + ARRIVES;
        while let Some(Behind { group, partition, left }) =
            behind(&eyes.pools(service), consumer, topic, &ends).await?
        {
            if Instant::now() > deadline {
                return Ok(Some(format!("{group} is {left} records behind on {}/{partition}", topic.name())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(None)
}

fn ends(cluster: &Cluster, topic: Topic) -> Result<Vec<(i32, i64)>, Failure> {
    let reader = LogReader::new(cluster)?;
    let partitions = 0..reader.partitions(topic.name())?;
    partitions.map(|partition| Ok((partition, reader.bounds(topic.name(), partition)?.1))).collect()
}

struct Behind {
    group: String,
    partition: i32,
    left: i64,
}

async fn behind(
    pools: &[PgPool],
    consumer: Consumer,
    topic: Topic,
    ends: &[(i32, i64)],
) -> Result<Option<Behind>, Failure> {
    let away = |error| Failure::away(format!("the database of who reads {} failed: {error}", topic.name()));
    let mut positions = Vec::new();
    for pool in pools {
        let mut connection = pool.acquire().await.map_err(away)?;
        positions.extend(messaging::positions(&mut connection).await.map_err(away)?);
    }
    let group = match consumer {
        Consumer::Group(group) => group.to_owned(),
        Consumer::OfApi(name) => auditor::api_group(&positions, name),
    };
    positions.retain(|position| position.group == group && position.topic == topic.name());
    let left = |(partition, end): &(i32, i64)| {
        let position = positions.iter().find(|position| position.partition == *partition);
        let left = end - position.map_or(0, |position| position.next.0);
        (left > 0).then(|| Behind { group: group.clone(), partition: *partition, left })
    };
    Ok(ends.iter().find_map(left))
}

pub(crate) async fn run(servers: &Servers, options: &Audit, terminal: &Terminal) -> Result<Verdict, Failure> {
    let key = options.sign_key.as_deref().map(sign::Key::read).transpose()?;
    let eyes = Eyes::open(servers).await?;
    if options.watch {
        return watch::run(&eyes, options, terminal).await;
    }
    let audited = audit(&eyes, true).await?;
    match (&key, terminal.json) {
        (Some(key), _) => terminal.json(&key.sign(&audited)?)?,
        (None, true) => terminal.json(&audited)?,
        (None, false) => print(&audited, terminal),
    }
    Ok(Verdict::found_if(!audited.clean))
}

fn print(audited: &Audited, terminal: &Terminal) {
    let states: Vec<String> =
        audited.orders.iter().map(|(state, orders)| format!("{orders} {state}")).collect();
    let total: u64 = audited.orders.values().sum();
    terminal.line(format!(
        "{total} orders: {}",
        if states.is_empty() { "none".to_owned() } else { states.join(", ") }
    ));
    let Units { total, available, held, sold } = audited.units;
    terminal.line(format!("{total} units: {available} available, {held} held, {sold} sold"));
    terminal.line(format!("money: {} charged, {} given back", audited.charged, audited.refunded));
    if let Some(turns) = &audited.turns {
        let unpromised = turns.skus_without_promise.len();
        terminal.line(format!(
            "turns: {} reserves and {} tickets compared, {unpromised} skus whose tickets promise nothing",
            turns.reserves, turns.tickets
        ));
    }
    if let Some(orders) = audited.trails {
        terminal.line(format!("logs: the way of {orders} orders followed"));
    }
    if let Some(skus) = audited.redis {
        terminal.line(format!("redis: {skus} skus compared"));
    }
    if let Some(why) = &audited.redis_away {
        terminal.line(terminal.toned(Tone::Bad, &format!("redis: not compared: {}", plain(why))));
    }
    terminal.line(format!("{} on their way, {} looks", audited.on_their_way, audited.looks));
    for order in &audited.settled_by_hand {
        terminal.line(format!("settled by hand: order {order} (sagactl show says by what)"));
    }
    for violation in &audited.violations {
        terminal.line(terminal.toned(Tone::Bad, &plain(&violation.to_string())));
    }
    for violation in &audited.unconfirmed {
        terminal.line(format!("not confirmed: {}", plain(&violation.to_string())));
    }
    if let Some(behind) = &audited.behind {
        terminal.line(format!("{}: what is not confirmed may only be late", plain(behind)));
    }
    terminal.line(if audited.clean {
        terminal.toned(Tone::Good, "clean")
    } else {
        let (found, open) = (audited.violations.len(), audited.unconfirmed.len());
        terminal.toned(Tone::Bad, &format!("{found} violations, {open} not confirmed"))
    });
}
