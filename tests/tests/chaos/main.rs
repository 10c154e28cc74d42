//! Every fault on real processes, two replicas of each service, while customers buy; after each one the system recovers by itself
//! and the audit is clean.
//!
//! `make test` runs a few cells, chosen by a seed that it prints; `make chaos` runs all and writes `docs/chaos.md`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use system_tests::{Client, System};

mod disk;
mod faults;
mod links;
mod load;
mod soak;

use faults::{Chaos, Fault, SERVICES};
use links::Links;
use load::{Load, Told};

/// Recovered: an order of each of these products, placed after the fault, is paid.
const PROBES: usize = 8;
/// Within this time. A session times out after 6 s, a service is started again after at most 10 s.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Customers buy for so long before the fault.
const BEFORE: Duration = Duration::from_secs(1);
/// And at least for so many seconds in all.
const BUSY_S: u64 = 4;
/// Units of each product: more than all customers get.
const STOCK: u32 = 1_000_000;
/// Cells that `make test` runs.
const FEW: usize = 3;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn busy() -> Duration {
    Duration::from_secs(variable("CHAOS_BUSY_S").unwrap_or(BUSY_S))
}

/// What came of a cell.
struct Row {
    name: String,
    orders: usize,
    recovered: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x2_whatever_fails_is_recovered_from_without_a_loss_a_double_or_an_oversell() {
    let seed = variable("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let count = variable("CHAOS_CELLS").map_or(FEW, |count| usize::try_from(count).unwrap());
    let mut cells = faults::selection(seed, count);
    if let Ok(part) = std::env::var("CHAOS_ONLY") {
        cells = faults::selection(seed, usize::MAX);
        cells.retain(|(name, _)| name.contains(&part));
    }
    println!("CHAOS_SEED={seed}: {} of {} cells", cells.len(), faults::matrix().len());

    let (links, rest): (Vec<_>, Vec<_>) =
        cells.into_iter().partition(|(_, fault)| matches!(fault, Fault::BadLink { .. }));
    let mut rows = Vec::new();
    if !rest.is_empty() {
        rows.extend(all(Scene::start("chaos", None).await, rest).await);
    }
    if !links.is_empty() {
        rows.extend(all(Scene::start("links", Some(Links::start("links").await)).await, links).await);
    }
    if let Ok(file) = std::env::var("CHAOS_TABLE") {
        std::fs::write(file, table(&rows, seed)).unwrap();
    }
}

/// All these cells, one after the other, in one scene.
async fn all(mut scene: Scene, cells: Vec<(String, Fault)>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, fault) in cells {
        eprintln!("{name} ...");
        let before = scene.told.accepted.lock().await.len();
        let recovered = cell(&scene, fault).await;
        let orders = scene.told.accepted.lock().await.len() - before;
        println!("{name}: {orders} orders, recovered after {:.1} s", recovered.as_secs_f64());
        rows.push(Row { name, orders, recovered });
    }
    scene.end().await;
    rows
}

/// A running system, its products and customers, and what these were told.
struct Scene {
    system: System,
    /// Relays before its servers; without them the servers are its own.
    links: Option<Links>,
    folder: PathBuf,
    skus: Vec<String>,
    customers: Vec<Client>,
    told: Arc<Told>,
}

impl Scene {
    async fn start(name: &str, links: Option<Links>) -> Self {
        let folder = testkit::fresh_folder(name);
        let asked = folder.display().to_string();
        let mut options = vec!["--separate", "--set", "charge_within=10s", "--set", "pay_within=10s"];
        let replicas = SERVICES.map(|service| format!("{service}=2"));
        options.extend(replicas.iter().flat_map(|replicas| ["--replicas", replicas]));
        let behind = links.as_ref().map(Links::options);
        options.extend(behind.iter().flatten().map(String::as_str));
        let system = System::up_with(name, &options, &[("FIRSTCOME_CRASH_DIR", &asked)]).await;
        let admin = system.admin();
        let unlimited = json!({"limit_per_customer": null});
        let skus = join_all((0..PROBES).map(|_| admin.new_product(STOCK, &unlimited))).await;
        let customers = (0..48).map(|_| system.customer()).collect();
        Self { system, links, folder, skus, customers, told: Arc::default() }
    }

    fn chaos(&self) -> Chaos<'_> {
        Chaos {
            system: &self.system,
            folder: self.folder.clone(),
            links: self.links.as_ref(),
            hot_sku: self.skus[0].clone(),
        }
    }

    fn load(&self, every: Duration) -> Load {
        Load::start(&self.system, &self.customers, &self.skus, &self.told, every)
    }

    /// Orders of all products, placed from now on, are paid.
    async fn recovered(&self) {
        let orders = self.skus.iter().zip(&self.customers);
        join_all(orders.map(|(sku, customer)| paid(&self.system, customer, sku))).await;
    }

    /// All is as it should be, by every measure there is.
    async fn end(&mut self) {
        self.system.ready_again().await;
        self.system.audited().await;
        self.system.no_order_is_missing(&self.told.accepted.lock().await).await;
        println!("answers by status: {:?}", self.told.answers.lock().await);
        self.system.down().await;
    }
}

/// Customers buy, the fault strikes, orders placed from then on are paid, customers rest, the audit is clean; returns how long the recovery took.
async fn cell(scene: &Scene, fault: Fault) -> Duration {
    let began = Instant::now();
    let load = scene.load(Duration::ZERO);
    tokio::time::sleep(BEFORE).await;
    scene.chaos().strike(fault).await;
    let struck = Instant::now();
    scene.recovered().await;
    let recovered = struck.elapsed();
    tokio::time::sleep(busy().saturating_sub(began.elapsed())).await;
    load.end().await;
    if matches!(fault, Fault::Poison { .. }) {
        scene.chaos().discard().await;
    }
    scene.system.audited_databases().await;
    assert_eq!(scene.chaos().parked(), 0, "something is set aside");
    recovered
}

/// An order is placed, at any node, and paid.
async fn paid(system: &System, customer: &Client, sku: &str) {
    let key = uuid::Uuid::new_v4().to_string();
    let body = system_tests::order_body(&[(sku, 1)], Some("tok_approve"));
    let mut node = 0;
    testkit::eventually(RECOVERED_WITHIN, "a new order is paid", async || {
        node += 1;
        let request = customer.at(node % system.apis().len()).request(reqwest::Method::POST, "/v1/orders");
        let request = request.header("idempotency-key", &key).header("prefer", "wait=5").json(&body);
        match Client::try_send(request).await {
            Ok(answer) if answer.body["state"] == "PAID" => Ok(()),
            Ok(answer) => Err(answer.body.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

fn table(rows: &[Row], seed: u64) -> String {
    let (orders, busy) = (rows.iter().map(|row| row.orders).sum::<usize>(), busy().as_secs());
    let mut text = format!(
        "# Chaos\n\nWritten by `CHAOS_SEED={seed} CHAOS_BUSY_S={busy} make chaos`: real processes, two replicas of each service, {} cells,\n\
         {orders} orders placed meanwhile. After each cell the audit was clean and nothing was set aside; at the end every accepted order\n\
         was there, and `sagactl replay --all` found no drift. Nothing was started by hand.\n\n\
         Recovered: from the end of the fault until {PROBES} new orders of {PROBES} products were paid.\n\n\
         | Fault | Orders | Recovered after |\n|---|---|---|\n",
        rows.len()
    );
    for row in rows {
        writeln!(text, "| {} | {} | {:.1} s |", row.name, row.orders, row.recovered.as_secs_f64()).unwrap();
    }
    text
}
