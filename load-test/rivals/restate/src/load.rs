//! The same load as `../../driver.mjs` puts on the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::{Order, UNITS, Units};

#[derive(Debug, Clone, Parser)]
pub(crate) struct Load {
    /// Restate's ingress.
    #[arg(long)]
    ingress: String,
    /// Its admin API.
    #[arg(long)]
    admin: String,
    /// What runs there, for the report.
    #[arg(long)]
    name: String,
    /// Of each run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[arg(long, default_value_t = 100)]
    idle_orders: usize,
    #[arg(long, default_value_t = 1_000)]
    skus: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256])]
    in_flight: Vec<usize>,
}

/// Which orders come next, and where they go.
struct Shop {
    client: reqwest::Client,
    ingress: String,
    skus: usize,
    placed: AtomicUsize,
}

impl Shop {
    async fn call(&self, what: &str, body: Option<&Order>) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}/{what}", self.ingress));
        let request = match body {
            Some(order) => request.json(order),
            None => request,
        };
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Places the next order and waits for its end.
    async fn complete(&self, is_hot: bool, declined_of_ten: usize) -> anyhow::Result<Duration> {
        let number = self.placed.fetch_add(1, Ordering::Relaxed);
        let sku = if is_hot { 0 } else { number.wrapping_mul(7_919) % self.skus };
        let order = Order { sku: format!("RIVAL-{sku}"), is_declined: number % 10 < declined_of_ten };
        let begun = Instant::now();
        let state = self.call("Saga/place", Some(&order)).await?;
        let wanted = if order.is_declined { "PAYMENT_FAILED" } else { "PAID" };
        ensure!(state == wanted, "order {number} ended {state} instead of {wanted}");
        Ok(begun.elapsed())
    }
}

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1_000.0)
}

impl Load {
    /// Tells Restate where the handlers are.
    pub(crate) async fn register(&self, handlers: &str) -> anyhow::Result<()> {
        let deployments = format!("{}/deployments", self.admin);
        let answer = reqwest::Client::new().post(deployments).json(&json!({"uri": handlers, "force": true})).send().await?;
        ensure!(answer.status().is_success(), "not registered: {}", answer.text().await?);
        Ok(())
    }

    /// Warms up, measures and prints.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
        let Self { ingress, skus, .. } = self.clone();
        let shop = Arc::new(Shop { client, ingress, skus, placed: AtomicUsize::new(0) });
        closed(&shop, self.seconds, 64, false).await?;
        let mut idle = Vec::with_capacity(self.idle_orders);
        for _ in 0..self.idle_orders {
            idle.push(shop.complete(true, 0).await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        idle.sort_unstable();
        let uniform = self.best(&shop, false).await?;
        let hot = self.best(&shop, true).await?;
        self.check(&shop).await?;
        let idle = json!({"orders": idle.len(), "p50_ms": percentile(&idle, 0.5), "p99_ms": percentile(&idle, 0.99)});
        println!("{}", json!({"name": self.name, "idle": idle, "uniform": uniform, "hot": hot}));
        Ok(())
    }

    /// Each number in flight in turn; the fastest counts.
    async fn best(&self, shop: &Arc<Shop>, is_hot: bool) -> anyhow::Result<Value> {
        let mut best = (0.0, Value::Null);
        for in_flight in &self.in_flight {
            let (per_second, seen) = closed(shop, self.seconds, *in_flight, is_hot).await?;
            eprintln!("{}, {in_flight} in flight: {per_second:.0}/s", if is_hot { "hot" } else { "uniform" });
            if per_second > best.0 {
                best = (per_second, seen);
            }
        }
        Ok(best.1)
    }

    /// No unit may be held or missing.
    async fn check(&self, shop: &Shop) -> anyhow::Result<()> {
        for number in 0..self.skus {
            let books = shop.call(&format!("Stock/RIVAL-{number}/books"), None).await?;
            let Units { available, held, sold } = serde_json::from_value(books).context("no books")?;
            ensure!(held == 0 && available + sold == UNITS, "RIVAL-{number}: {available} + {held} + {sold}");
        }
        Ok(())
    }
}

/// As many buyers as are to be in flight, each with one order after the other until the time is over.
async fn closed(shop: &Arc<Shop>, seconds: u64, in_flight: usize, is_hot: bool) -> anyhow::Result<(f64, Value)> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let buyers: Vec<_> = (0..in_flight)
        .map(|_| {
            let shop = Arc::clone(shop);
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    took.push(shop.complete(is_hot, 1).await?);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for buyer in buyers {
        took.extend(buyer.await??);
    }
    let orders = took.len();
    let per_second = orders as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let (p50_ms, p99_ms) = (percentile(&took, 0.5), percentile(&took, 0.99));
    let seen = json!({"in_flight": in_flight, "orders": orders, "per_second": per_second, "p50_ms": p50_ms, "p99_ms": p99_ms});
    Ok((per_second, seen))
}
