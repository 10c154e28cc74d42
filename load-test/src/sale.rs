//! A sale that is sold out at once and stormed all the same, over HTTP: more customers than units, each of whom tries
//! several times at the same instant.
//!
//! An open loop: each customer has an instant at which he comes, whatever became of those before him, and latency
//! counts from there. What waits here for a connection counts, too.

mod buyer;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tool_kit::{Signer, duration};
use uuid::Uuid;

use crate::endpoints::Endpoints;
use crate::out::say;
use buyer::{Ended, Shop, Tried};
pub(crate) use report::Report;

/// How long after the last customer came a try may still be without an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// How long orders may be on their way after that, and the catalogue behind.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long tokens are valid beyond the sale itself.
const TOKENS_FOR: Duration = Duration::from_secs(3_600);
/// Orders that are looked at at the same time once the sale is over.
const LOOKS_AT_ONCE: usize = 32;

/// `load-test sale`
#[derive(Debug, Args)]
pub(crate) struct Sale {
    /// Customers.
    #[arg(long, default_value_t = Sale::default().buyers)]
    buyers: u32,
    /// The time over which they come, evenly.
    #[arg(long, value_parser = duration::parse, default_value = "10s")]
    within: Duration,
    /// Orders that each of them places at the same instant, under keys of their own.
    #[arg(long, default_value_t = Sale::default().tries)]
    tries: u32,
    /// Units for sale.
    #[arg(long, default_value_t = Sale::default().units)]
    units: u32,
    /// Units that one customer may have.
    #[arg(long, default_value_t = Sale::default().limit)]
    limit: u32,
    /// Of a hundred customers, how many have a payment that is declined: their units come back.
    #[arg(long, default_value_t = Sale::default().declined)]
    declined: u32,
    /// Most connections, and so requests at once: each is an open file here, and one at the api.
    #[arg(long, default_value_t = Sale::default().connections)]
    connections: usize,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

impl Default for Sale {
    /// As the command has it.
    fn default() -> Self {
        Self {
            buyers: 10_000,
            within: Duration::from_secs(10),
            tries: 3,
            units: 100,
            limit: 1,
            declined: 0,
            connections: 512,
            json: false,
        }
    }
}

/// `load-test sale`: whether all that must hold does.
pub(crate) async fn run(endpoints: &Endpoints, options: &Sale) -> anyhow::Result<bool> {
    let report = measure(endpoints, options).await?;
    if options.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&report)?;
    }
    Ok(report.holds())
}

/// Holds the sale.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Sale) -> anyhow::Result<Report> {
    let client = Client::builder()
        .timeout(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(options.connections)
        .tcp_nodelay(true)
        .no_proxy()
        .build()?;
    let signer = Signer::read(&endpoints.keys())?;
    let mut sku = Uuid::new_v4().simple().to_string().to_uppercase();
    sku.truncate(12);
    let shop = Arc::new(Shop {
        client,
        apis: endpoints.api.clone(),
        sku: format!("STORM-{sku}"),
        gate: Semaphore::new(options.connections.max(1)),
    });
    open(&shop, &signer, options).await?;
    let tokens = tokens(&signer, options)?;

    let (mut report, accepted) = storm(&shop, &tokens, options).await?;
    report.ended(settle(&shop, &tokens, accepted).await?);
    report.available(&available(&shop, report.expected_left()).await?);
    let cluster = endpoints.cluster();
    let turns = tokio::task::spawn_blocking(move || auditor::first_come::check_logs(cluster)).await??;
    report.turns(&shop.sku, &turns);
    Ok(report)
}

/// Registers the product, and waits until every node knows it.
async fn open(shop: &Shop, signer: &Signer, options: &Sale) -> anyhow::Result<()> {
    let token = signer.sign(Uuid::new_v4(), &["admin".to_owned()], None, TOKENS_FOR)?;
    let product = json!({
        "name": format!("Storm {}", shop.sku), "option": null, "category": "load", "kind": "limited",
        "price": {"amount": 129_000, "currency": "KRW"}, "sale": null, "limit_per_customer": options.limit,
        "initial_stock": options.units,
    });
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let url = format!("{}/v1/admin/products/{}", shop.api(0), shop.sku);
        let answer = shop.client.put(url).bearer_auth(&token).json(&product).send().await?;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => return Ok(()),
            // Under way: the next one finds it done.
            StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE if Instant::now() < deadline => {
                tokio::time::sleep(buyer::retry_after(&answer)).await;
            }
            status => anyhow::bail!("the product was not registered: {status} {}", answer.text().await?),
        }
    }
}

/// Of every customer: made before the sale, because signing is not what is measured.
fn tokens(signer: &Signer, options: &Sale) -> anyhow::Result<Vec<Arc<str>>> {
    let roles = ["customer".to_owned()];
    let ttl = options.within + TOKENS_FOR;
    let sign = |_| Ok(signer.sign(Uuid::new_v4(), &roles, None, ttl)?.into());
    (0..options.buyers).map(sign).collect()
}

/// An order that was taken, and whose it is.
struct Accepted {
    buyer: usize,
    order: String,
}

/// Everybody comes; ends when every try has its answer.
async fn storm(
    shop: &Arc<Shop>,
    tokens: &[Arc<str>],
    options: &Sale,
) -> anyhow::Result<(Report, Vec<Accepted>)> {
    let began = Instant::now();
    let deadline = began + options.within + ANSWERED_WITHIN;
    let mut tries: JoinSet<(usize, Tried)> = JoinSet::new();
    let (mut report, mut accepted) = (Report::new(&shop.sku, options)?, Vec::new());
    for ((buyer, token), number) in tokens.iter().enumerate().zip(0_u32..) {
        let comes = began + options.within.mul_f64(f64::from(number) / f64::from(options.buyers));
        tokio::time::sleep_until(comes).await;
        // Mixed by a step that has no common factor with a hundred: those who come first are not all declined.
        let method =
            if number.wrapping_mul(61) % 100 < options.declined { "tok_decline" } else { "tok_approve" };
        for number in 0..options.tries as usize {
            let (shop, token) = (Arc::clone(shop), Arc::clone(token));
            tries.spawn(async move {
                (buyer, shop.try_to_buy(buyer + number, &token, method, comes, deadline).await)
            });
        }
    }
    while let Some(tried) = tries.join_next().await {
        let (buyer, tried) = tried.context("a try panicked")?;
        report.tried(&tried);
        if let Ended::Accepted(order) = tried.ended {
            accepted.push(Accepted { buyer, order });
        }
    }
    report.took(began.elapsed());
    Ok((report, accepted))
}

/// How every order that was taken ended, and whose it is. One order is there once, whatever keys named it.
async fn settle(
    shop: &Arc<Shop>,
    tokens: &[Arc<str>],
    accepted: Vec<Accepted>,
) -> anyhow::Result<Vec<(usize, String)>> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let orders: HashMap<String, usize> =
        accepted.into_iter().map(|taken| (taken.order, taken.buyer)).collect();
    let gate = Arc::new(Semaphore::new(LOOKS_AT_ONCE));
    let mut looks = JoinSet::new();
    for (order, buyer) in orders {
        let token = Arc::clone(tokens.get(buyer).context("nobody's order")?);
        let (shop, gate) = (Arc::clone(shop), Arc::clone(&gate));
        looks.spawn(async move {
            let _turn = gate.acquire().await;
            (buyer, shop.follow(buyer, &order, &token, deadline).await)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = looks.join_next().await {
        all.push(ended.context("a look panicked")?);
    }
    Ok(all)
}

/// What each node says is left, once that is as expected or it has had time enough.
async fn available(shop: &Shop, expected: u64) -> anyhow::Result<Vec<u64>> {
    let deadline = Instant::now() + SETTLED_WITHIN / 4;
    let mut all = Vec::new();
    for node in 0..shop.apis.len() {
        let url = format!("{}/v1/products/{}", shop.api(node), shop.sku);
        let left = loop {
            let product: Value = shop.client.get(&url).send().await?.json().await?;
            let left = product.get("available").and_then(Value::as_u64);
            match left {
                Some(left) if left == expected || Instant::now() > deadline => break left,
                _ if Instant::now() > deadline => anyhow::bail!("the product can't be read: {product}"),
                _ => tokio::time::sleep(buyer::LOOK_EVERY).await,
            }
        };
        all.push(left);
    }
    Ok(all)
}
