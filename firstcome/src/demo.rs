//! `firstcome demo`: a flash sale over HTTP, as a shop's customers would hold it, and what came of it.

mod buyer;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cli::Demo;
use crate::client;
use crate::endpoints::Endpoints;
use crate::{catalogue, console, keys};
use tool_kit::Signer;

use buyer::{Buyer, Outcome, Purchase};
use report::Report;

/// How long the read side may take to show the last change.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// Exit code 1 if anything does not add up.
pub(crate) async fn run(options: &Demo) -> anyhow::Result<ExitCode> {
    let home = options.data_dir.home();
    let endpoints = Endpoints::read(&home)?;
    let signer = Arc::new(keys::signer(&home)?);
    let client = client::new()?;
    let sku =
        format!("DEMO-{}", Uuid::new_v4().simple().to_string().to_uppercase().get(..8).unwrap_or_default());
    open_sale(options, &endpoints, &signer, &client, &sku).await?;
    println!("{} buyers want {} units of {sku}", options.buyers, options.units);

    let began = Instant::now();
    let purchases = hold_sale(options, &endpoints, &signer, &client, &sku).await?;
    let took = began.elapsed();
    let left = units_left(&endpoints, &client, &sku, options.units, &purchases).await?;
    let mut report = Report::new(options, &purchases, took, left);
    if !options.no_audit {
        report.audit(&endpoints).await?;
    }
    println!("{report}");
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open_sale(
    options: &Demo,
    endpoints: &Endpoints,
    signer: &Signer,
    client: &reqwest::Client,
    sku: &str,
) -> anyhow::Result<()> {
    let token = signer.sign(Uuid::new_v4(), &["admin".to_owned()], None, Duration::from_secs(600))?;
    let product = json!({
        "name": format!("Flash sale {sku}"), "option": null, "category": "demo", "kind": "limited",
        "price": {"amount": 129_000, "currency": "KRW"}, "sale": null, "limit_per_customer": 1,
        "initial_stock": options.units,
    });
    catalogue::define(client, endpoints.first_api()?, &token, sku, &product).await
}

/// All buyers at once, as far as `--concurrency` allows; ends when each knows what became of its order.
async fn hold_sale(
    options: &Demo,
    endpoints: &Endpoints,
    signer: &Arc<Signer>,
    client: &reqwest::Client,
    sku: &str,
) -> anyhow::Result<Vec<Purchase>> {
    let bar = console::count_bar(options.buyers.into());
    let deadline = Instant::now() + options.within;
    let gate = Arc::new(Semaphore::new(options.concurrency.max(1)));
    let mut buyers = JoinSet::new();
    for number in 0..options.buyers {
        let api = endpoints.api.get(number as usize % endpoints.api.len().max(1)).context("no api")?;
        let customer = Uuid::new_v4();
        let token = signer.sign(
            customer,
            &["customer".to_owned()],
            None,
            options.within + Duration::from_secs(600),
        )?;
        let method = method(number, options);
        let buyer =
            Buyer { client: client.clone(), api: api.clone(), token, sku: sku.to_owned(), method, deadline };
        let gate = Arc::clone(&gate);
        buyers.spawn(async move {
            let _turn = gate.acquire_owned().await;
            buyer.buy().await
        });
    }
    let mut purchases = Vec::new();
    let (mut sold, mut compensated, mut refused) = (0_u32, 0_u32, 0_u32);
    while let Some(purchase) = buyers.join_next().await {
        let purchase = purchase.context("a buyer panicked")?;
        match &purchase.outcome {
            Outcome::Sold => sold += 1,
            Outcome::PaymentFailed { .. } => compensated += 1,
            Outcome::Refused { .. } => refused += 1,
            Outcome::Other { .. } | Outcome::Unsettled { .. } => {}
        }
        bar.set_message(format!("sold {sold}, payment failed {compensated}, refused {refused}"));
        bar.inc(1);
        purchases.push(purchase);
    }
    bar.finish_and_clear();
    Ok(purchases)
}

/// Shares of payment methods: exact over all buyers, mixed among them, the same in every run.
fn method(number: u32, options: &Demo) -> &'static str {
    // Multiplying by the golden ratio spreads consecutive numbers evenly over 0..1.
    let spread = (f64::from(number) * 0.618_033_988_749_895).fract();
    if spread < options.abandon {
        "tok_abandon"
    } else if spread < options.abandon + (1.0 - options.abandon) * options.decline {
        "tok_decline"
    } else {
        "tok_approve"
    }
}

/// What the catalogue says is left, once it agrees with the orders or has had time enough to.
async fn units_left(
    endpoints: &Endpoints,
    client: &reqwest::Client,
    sku: &str,
    units: u32,
    purchases: &[Purchase],
) -> anyhow::Result<u64> {
    let sold = purchases.iter().filter(|purchase| matches!(purchase.outcome, Outcome::Sold)).count();
    let expected = u64::from(units).saturating_sub(sold as u64);
    let url = format!("{}/v1/products/{sku}", endpoints.first_api()?);
    let began = Instant::now();
    loop {
        let (status, product) = client::answer(client.get(&url)).await.context("the api does not answer")?;
        let left = product.get("available").and_then(serde_json::Value::as_u64);
        match left {
            Some(left) if left == expected || began.elapsed() > SETTLES_WITHIN => return Ok(left),
            _ if began.elapsed() > SETTLES_WITHIN => {
                anyhow::bail!("the product can't be read: {status} {product}")
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A status that is worth trying again with the same `Idempotency-Key`.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error()
}
