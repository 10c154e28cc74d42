//! Past one machine: state spread over databases, and a cluster of brokers that loses one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;
use system_tests::{Client, System};
use tokio::sync::{Mutex, MutexGuard};

mod brokers;
#[path = "../chaos/load.rs"]
mod load;
mod split;

/// Two cores are not enough for several systems at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

/// Products of more units than all customers get, and the customers.
async fn market(system: &System, products: usize) -> (Vec<String>, Vec<Client>) {
    let (admin, unlimited) = (system.admin(), json!({"limit_per_customer": null}));
    let mut skus = Vec::new();
    for _ in 0..products {
        skus.push(admin.new_product(1_000_000, &unlimited).await);
    }
    (skus, (0..48).map(|_| system.customer()).collect())
}
