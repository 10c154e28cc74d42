//! A long run at half of what the machine can do, with a fault every now and then; what memory it takes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use local_stack::{Part, Stack};
use messaging::LogReader;
use tokio::sync::watch;

use crate::faults::{Fault, SERVICES, selection};
use crate::load::BUYERS;
use crate::{Scene, variable};

/// As long as nothing else is asked for with `SOAK_S`.
const SOAK_S: u64 = 20 * 60;
/// How long the most that the machine can do is measured.
const FULL: Duration = Duration::from_secs(30);
const FAULT_EVERY: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The most memory of the last quarter of the time may be so much more than that of the third.
const GROWTH: f64 = 1.15;
const SLACK_MIB: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twenty minutes: make soak"]
async fn x2_twenty_minutes_of_faults_leave_nothing_behind_and_memory_flat() {
    let long = Duration::from_secs(variable("SOAK_S").unwrap_or(SOAK_S));
    let seed = variable("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("CHAOS_SEED={seed}, {} s", long.as_secs());
    let mut scene = Scene::start("soak", None).await;
    let full = scene.load(Duration::ZERO);
    tokio::time::sleep(FULL).await;
    full.end().await;
    let most = scene.told.accepted.lock().await.len();
    let rate = most as f64 / FULL.as_secs_f64();
    println!("{rate:.0} orders/s at most; from now on half of it");

    let load = scene.load(Duration::from_secs_f64(f64::from(BUYERS) * 2.0 / rate));
    let (began, mut faults) = (Instant::now(), 0);
    let (quarter, seen) = watch::channel(0);
    let memory = tokio::spawn(watch_memory(scene.system.data(), seen));
    let lasting =
        |(_, fault): &(String, Fault)| !matches!(fault, Fault::Poison { .. } | Fault::BadLink { .. });
    let cells: Vec<_> = selection(seed, usize::MAX).into_iter().filter(lasting).collect();
    for (name, fault) in cells.iter().cycle() {
        if began.elapsed() + FAULT_EVERY > long {
            break;
        }
        let next = Instant::now() + FAULT_EVERY;
        println!("{:>5} s  {name}", began.elapsed().as_secs());
        scene.chaos().strike(*fault).await;
        scene.recovered().await;
        faults += 1;
        tokio::time::sleep_until(next.into()).await;
        quarter.send_replace((began.elapsed().as_secs() * 4 / long.as_secs()).min(3));
    }
    drop(quarter);
    load.end().await;
    let most_mib = memory.await.unwrap();
    let orders = scene.told.accepted.lock().await.len();
    println!("{orders} orders, {faults} faults");

    scene.system.audited_databases().await;
    nothing_is_left(&scene).await;
    for (name, quarters) in &most_mib {
        println!("{name}: most memory by quarter, MiB: {quarters:?}");
    }
    for (name, [_, _, third, last]) in &most_mib {
        let bound = *third as f64 * GROWTH + SLACK_MIB as f64;
        assert!(*last as f64 <= bound, "{name} grows: {third} MiB, then {last} MiB");
    }
    scene.end().await;
}

/// The most memory of each process by quarter, MiB, until the other side of `quarter` is gone.
async fn watch_memory(data: std::path::PathBuf, quarter: watch::Receiver<u64>) -> BTreeMap<String, [u64; 4]> {
    let mut most: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    while quarter.has_changed().is_ok() {
        let now = usize::try_from(*quarter.borrow()).unwrap();
        for (name, pid) in processes(&data) {
            let Some(resident) = resident_mib(pid) else { continue };
            let most = &mut most.entry(name).or_default()[now];
            *most = resident.max(*most);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    most
}

fn processes(data: &std::path::Path) -> Vec<(String, u32)> {
    let replicas = SERVICES.iter().flat_map(|service| [1, 2].map(|number| format!("{service}-{number}")));
    let services = replicas.filter_map(|name| {
        let file = data.join("run").join(format!("{name}.pid"));
        Some((name, local_stack::PidFile::new(file).alive()?))
    });
    let servers = [Part::Kafka, Part::Redis];
    let servers = servers.iter().filter_map(|part| Some((part.to_string(), Stack::pid_in(data, *part)?)));
    services.chain(servers).collect()
}

fn resident_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Outboxes and parked records are gone, and every consumer is at the end of its log.
async fn nothing_is_left(scene: &Scene) {
    for service in ["orchestrator", "stock", "payment", "api"] {
        let database = scene.system.database(service).await;
        testkit::eventually(Duration::from_secs(60), "outbox, parked records and lag are gone", async || {
            let count =
                "SELECT (SELECT count(*) FROM messaging_outbox), (SELECT count(*) FROM messaging_parked)";
            let (outbox, parked): (i64, i64) =
                sqlx::query_as(count).fetch_one(&database).await.map_err(|error| error.to_string())?;
            let positions = messaging::positions(&mut database.acquire().await.unwrap()).await.unwrap();
            let kafka = scene.system.kafka();
            let lag = tokio::task::spawn_blocking(move || {
                let reader = LogReader::new(&kafka).unwrap();
                let lag = |at: &messaging::GroupPosition| {
                    reader.bounds(&at.topic, at.partition).unwrap().1 - at.next.0
                };
                positions.iter().map(lag).sum::<i64>()
            });
            match (outbox, parked, lag.await.unwrap()) {
                (0, 0, 0) => Ok(()),
                left => Err(format!("{service}: {left:?}")),
            }
        })
        .await;
    }
}
