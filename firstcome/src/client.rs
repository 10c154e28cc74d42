//! HTTP calls to the api and to admin ports.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// A client with time-outs; connections are kept and used again.
pub(crate) fn new() -> anyhow::Result<Client> {
    Client::builder()
        .timeout(Duration::from_secs(15))
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .no_proxy()
        .build()
        .context("no HTTP client")
}

/// Status and body of an answer; a body that is no JSON is `null`.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Result<(StatusCode, Value), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status();
    let bytes = response.bytes().await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

/// A field of a JSON object as text; empty if it isn't there.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether `/readyz` beside that `/metrics` says yes; else what is missing.
pub(crate) async fn ready(client: &Client, metrics_url: &str) -> Result<(), String> {
    let url = metrics_url.trim_end_matches("/metrics").to_owned() + "/readyz";
    let request = client.get(url).timeout(Duration::from_secs(2));
    let response = request.send().await.map_err(|_error| "does not answer".to_owned())?;
    if response.status().is_success() {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    Err(text.trim().to_owned())
}
