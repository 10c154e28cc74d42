//! The demo catalogue, registered over the public admin API like any shop's.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client;
use tool_kit::Signer;

/// An order that the welcome text suggests: one of a limited good, paid at once.
pub(crate) const FIRST_ORDER: &str =
    r#"{"lines":[{"sku":"VINYL-FIRST-PRESS","quantity":1}],"payment":{"method":"tok_approve"}}"#;

/// Tries while the services are still finding each other.
const TRIES: u32 = 20;

/// Registers what is not there yet; what an admin changed stays changed. Says what was done.
pub(crate) async fn register(api: &str, signer: &Signer) -> anyhow::Result<String> {
    let client = client::new()?;
    let token = signer.sign(Uuid::new_v4(), &["admin".to_owned()], None, Duration::from_secs(600))?;
    let (mut new, mut present) = (0, 0);
    for (sku, product) in products(std::time::SystemTime::now().into()) {
        let url = format!("{api}/v1/products/{sku}");
        let (status, _) = client::answer(client.get(&url)).await.context("the api does not answer")?;
        if status == StatusCode::OK {
            present += 1;
            continue;
        }
        define(&client, api, &token, sku, &product).await?;
        new += 1;
    }
    Ok(format!("{new} products registered, {present} were there"))
}

/// `PUT /v1/admin/products/{sku}`, repeated while a dependency is away.
pub(crate) async fn define(
    client: &reqwest::Client,
    api: &str,
    token: &str,
    sku: &str,
    product: &Value,
) -> anyhow::Result<()> {
    let url = format!("{api}/v1/admin/products/{sku}");
    let mut last = (StatusCode::OK, Value::Null);
    for _ in 0..TRIES {
        let request = client.put(&url).bearer_auth(token).json(product);
        last = client::answer(request).await.context("the api does not answer")?;
        match last.0 {
            StatusCode::OK | StatusCode::CREATED => return Ok(()),
            // Under way: the next try finds it done.
            StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            _ => break,
        }
    }
    anyhow::bail!("product {sku} was not registered: {} {}", last.0, last.1)
}

fn products(now: DateTime<Utc>) -> Vec<(&'static str, Value)> {
    let at = |days: i64| {
        let time = now.checked_add_signed(TimeDelta::days(days)).unwrap_or(now);
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    };
    let krw = |amount: i64| json!({"amount": amount, "currency": "KRW"});
    let window = |from: i64, to: i64| json!({"opens_at": at(from), "closes_at": at(to)});
    vec![
        (
            "VINYL-FIRST-PRESS",
            json!({"name": "First pressing, numbered", "option": null, "category": "music", "kind": "limited",
                "price": krw(129_000), "sale": window(-1, 365), "limit_per_customer": 2, "initial_stock": 100}),
        ),
        (
            "SNEAKER-DROP-270",
            json!({"name": "Sneaker drop", "option": "270", "category": "shoes", "kind": "limited",
                "price": krw(189_000), "sale": window(-1, 365), "limit_per_customer": 1, "initial_stock": 50}),
        ),
        (
            "SNEAKER-DROP-280",
            json!({"name": "Sneaker drop", "option": "280", "category": "shoes", "kind": "limited",
                "price": krw(189_000), "sale": window(-1, 365), "limit_per_customer": 1, "initial_stock": 30}),
        ),
        (
            "MATINEE-FRONT-ROW",
            json!({"name": "Matinee, front row", "option": null, "category": "tickets", "kind": "limited",
                "price": krw(55_000), "limit_per_customer": 4, "initial_stock": 40,
                "sale": {"daily": {"opens": "14:00", "closes": "15:00", "time_zone": "Asia/Seoul"}}}),
        ),
        (
            "POSTER-NEXT-WEEK",
            json!({"name": "Signed poster", "option": null, "category": "music", "kind": "limited",
                "price": krw(35_000), "sale": window(7, 14), "limit_per_customer": 1, "initial_stock": 200}),
        ),
        (
            "TEE-BLACK-M",
            json!({"name": "T-shirt, black", "option": "M", "category": "clothes", "kind": "normal",
                "price": krw(29_000), "sale": null, "limit_per_customer": null, "initial_stock": 10_000}),
        ),
        (
            "MUG-CLASSIC",
            json!({"name": "Mug", "option": null, "category": "home", "kind": "normal",
                "price": krw(14_000), "sale": null, "limit_per_customer": null, "initial_stock": 10_000}),
        ),
    ]
}
