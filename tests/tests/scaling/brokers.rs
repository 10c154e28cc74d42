//! Three brokers, every record on all of them, acknowledged once two have it; the busiest one is killed under load.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use local_stack::{Brokers, Replicas, StackOptions};
use system_tests::{System, firstcome};

use crate::load::{Load, Told};
use crate::{alone, market};

const NODES: u8 = 3;
const PARTITIONS: &str = "3";
/// Heap of each node, MiB.
const HEAP_MIB: u32 = 192;
/// Pause between two orders of each of the 48 customers: about half of what this can carry on two cores.
const EVERY: Duration = Duration::from_millis(500);
/// Throughput and latency are those of so many seconds.
const WINDOW: Duration = Duration::from_secs(2);
/// What is usual is seen for longer: a window has no more than some hundred orders, and its p99 is nearly its worst.
const USUAL_WINDOW: Duration = Duration::from_secs(10);
/// Bound of everything that is waited for; what it really takes is printed.
const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "three JVMs beside everything else on two cores: `make scaling`"]
async fn the_busiest_of_three_brokers_is_killed_under_load_and_no_accepted_order_is_lost() {
    let _alone = alone().await;
    let began = Instant::now();
    let options = StackOptions {
        kafka_heap_mib: HEAP_MIB,
        start_deadline: 2 * WITHIN,
        ..StackOptions::for_tests(testkit::fresh_folder("three-brokers"))
    };
    let brokers = Brokers::start(&options, NODES).await.unwrap();
    make_topics(&brokers.bootstrap());
    println!("three brokers after {:.1} s", began.elapsed().as_secs_f64());
    let mut system =
        System::up("three-brokers", &["--kafka", &brokers.bootstrap(), "--partitions", PARTITIONS]).await;
    let (skus, customers) = market(&system, 8).await;
    let told = Arc::<Told>::default();
    let load = Load::start(&system, &customers, &skus, &told, EVERY);

    until_steady(&told).await;
    let usual = Seen::within(&told, USUAL_WINDOW).await;
    let replicas = brokers.replicas().await.unwrap();
    whole(&replicas).unwrap();
    let victim = busiest(&replicas);
    println!("{usual}; node {victim} leads most and is killed");
    brokers.kill(victim).await.unwrap();
    let killed = Instant::now();
    let paid = paid(&system, &customers[0], &skus[0]);
    let ((), ()) = tokio::join!(paid, until_as_before(&told, &usual, killed));
    let others = brokers.replicas().await.unwrap();
    assert!(others.iter().all(|of| of.leader != victim && !of.in_sync.contains(&victim)), "{others:?}");

    let back = Instant::now();
    brokers.start_again(victim).await.unwrap();
    testkit::eventually(WITHIN, "all replicas are in sync", async || whole(&brokers.replicas().await?)).await;
    println!("all replicas in sync {:.1} s after the node was started again", back.elapsed().as_secs_f64());
    load.end().await;
    println!("answers by status: {:?}", told.answers.lock().await);
    system.audited().await;
    system.no_order_is_missing(&told.accepted.lock().await).await;
    system.down().await;
}

fn make_topics(kafka: &str) {
    let made = Command::new(firstcome())
        .args(["topics", "--kafka", kafka, "--partitions", PARTITIONS, "--replication", &NODES.to_string()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Every partition has a leader and all of its replicas are in sync.
fn whole(replicas: &[Replicas]) -> Result<(), String> {
    let lacking: Vec<&Replicas> =
        replicas.iter().filter(|of| of.leader < 0 || of.in_sync.len() < usize::from(NODES)).collect();
    if lacking.is_empty() && !replicas.is_empty() { Ok(()) } else { Err(format!("{lacking:?}")) }
}

/// The node that leads most partitions, Kafka's own included. Which one that is differs from run to run.
fn busiest(replicas: &[Replicas]) -> i32 {
    let mut leads: BTreeMap<i32, usize> = BTreeMap::new();
    replicas.iter().for_each(|of| *leads.entry(of.leader).or_default() += 1);
    println!("partitions led, by node: {leads:?}");
    leads.into_iter().max_by_key(|(_, count)| *count).unwrap().0
}

/// What customers saw in a window that was waited for.
struct Seen {
    accepted_per_second: f64,
    /// Of the accepted ones, from the first try to the answer with the order's end.
    p99: Duration,
}

impl Seen {
    async fn within(told: &Told, window: Duration) -> Self {
        let (began, before) = (Instant::now(), told.waits.lock().await.len());
        tokio::time::sleep(window).await;
        let mut waits = told.waits.lock().await[before..].to_vec();
        let accepted_per_second = waits.len() as f64 / began.elapsed().as_secs_f64();
        waits.sort_unstable();
        let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
        Self { accepted_per_second, p99 }
    }

    /// Four fifths of its throughput, and no more than half as long again to wait.
    fn is_as_usual(&self, usual: &Self) -> bool {
        self.accepted_per_second >= usual.accepted_per_second * 0.8 && self.p99 <= usual.p99 * 3 / 2
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} orders/s", self.accepted_per_second)?;
        if self.p99 < Duration::MAX { write!(f, ", p99 {} ms", self.p99.as_millis()) } else { Ok(()) }
    }
}

/// Waits until the rate does not grow by more than a tenth from one window to the next.
async fn until_steady(told: &Told) {
    let mut last = 0.0;
    testkit::eventually(WITHIN, "the rate is steady", async || {
        let (before, now) = (last, Seen::within(told, WINDOW).await.accepted_per_second);
        last = now;
        if now > 0.0 && now <= before * 1.1 {
            Ok(())
        } else {
            Err(format!("{before:.0}, then {now:.0} orders/s"))
        }
    })
    .await;
}

/// Waits for a window that is as usual, and says when it began.
async fn until_as_before(told: &Told, usual: &Seen, since: Instant) {
    testkit::eventually(WITHIN, "orders are accepted as fast and as many as usual", async || {
        let began = since.elapsed();
        let now = Seen::within(told, WINDOW).await;
        println!("{:.1} s after the kill: {now}", began.as_secs_f64());
        if now.is_as_usual(usual) { Ok(()) } else { Err(format!("{now}, not {usual}")) }
    })
    .await;
}

/// An order placed after the kill is paid: every service consumes and publishes again.
async fn paid(system: &System, customer: &system_tests::Client, sku: &str) {
    let (key, killed) = (uuid::Uuid::new_v4().to_string(), Instant::now());
    let body = system_tests::order_body(&[(sku, 1)], Some("tok_approve"));
    testkit::eventually(WITHIN, "a new order is paid", async || {
        let request = customer.request(reqwest::Method::POST, "/v1/orders");
        let request = request.header("idempotency-key", &key).header("prefer", "wait=5").json(&body);
        match system_tests::Client::try_send(request).await {
            Ok(answer) if answer.body["state"] == "PAID" => Ok(()),
            Ok(answer) => Err(answer.body.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    println!(
        "{}: the first new order is paid {:.1} s after the kill",
        system.apis()[0],
        killed.elapsed().as_secs_f64()
    );
}
