//! Somebody who uses the API, as its documentation says.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::SOON;

/// How long a node that has no time is left alone: its `Retry-After`.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body; null if there is none.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is this one; else panics with everything.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Asserts a problem of this status and code.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail", "trace_id"] {
            assert!(self.body[field].is_string(), "{field} is missing: {}", self.body);
        }
    }

    /// The `Location` header.
    #[track_caller]
    pub fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }
}

/// Somebody who uses the API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    apis: Vec<String>,
    /// Who it is.
    pub id: Uuid,
    /// The token.
    pub token: String,
}

impl Client {
    /// A user of these api nodes.
    pub fn new(apis: Vec<String>, id: Uuid, token: String) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { http, apis, id, token }
    }

    /// The same user, at another node.
    pub fn at(&self, node: usize) -> Self {
        let api = self.apis.get(node).unwrap_or_else(|| panic!("there is no node {node}")).clone();
        Self { apis: vec![api], ..self.clone() }
    }

    /// A request to the first node, with the token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let api = self.apis.first().unwrap();
        self.http.request(method, format!("{api}{path}")).bearer_auth(&self.token)
    }

    /// Sends it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.unwrap()
    }

    /// Sends it; an error if there is no answer.
    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body })
    }

    /// `GET`. On a machine that tests keep busy a node may say that it has no time now: asked again, as it wishes.
    pub async fn get(&self, path: &str) -> Answer {
        let asked = Instant::now();
        loop {
            let answer = self.send(self.request(Method::GET, path)).await;
            if answer.body["code"] != "unavailable" || asked.elapsed() > SOON {
                return answer;
            }
            eprintln!("GET {path}: {}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// `POST`
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT`
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Places an order for one product.
    pub async fn order(&self, sku: &str, quantity: u32, method: Option<&str>) -> Answer {
        self.post("/v1/orders", &order_body(&[(sku, quantity)], method)).await
    }

    /// Places an order that must be accepted; its id. Tried again, under one key, while the node has no time.
    pub async fn ordered(&self, sku: &str, quantity: u32, method: Option<&str>) -> String {
        let (key, body) = (Uuid::new_v4().to_string(), order_body(&[(sku, quantity)], method));
        let asked = Instant::now();
        loop {
            let order = self.request(Method::POST, "/v1/orders").header("idempotency-key", &key).json(&body);
            let answer = self.send(order).await;
            if answer.body["code"] != "unavailable" || asked.elapsed() > SOON {
                return answer.expect(202)["id"].as_str().unwrap().to_owned();
            }
            eprintln!("POST /v1/orders: {}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// The order.
    pub async fn see(&self, order: &str) -> Value {
        self.get(&format!("/v1/orders/{order}")).await.expect(200)
    }

    /// The order, as soon as it is in one of these states.
    pub async fn until(&self, order: &str, states: &[&str]) -> Value {
        testkit::eventually(SOON, &format!("{order} is {states:?}"), async || {
            let seen = self.see(order).await;
            if states.iter().any(|state| seen["state"] == **state) { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    /// The order, as soon as this holds.
    pub async fn until_order(&self, order: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        testkit::eventually(SOON, &format!("{order}: {what}"), async || {
            let seen = self.see(order).await;
            if holds(&seen) { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    /// The product.
    pub async fn product(&self, sku: &str) -> Value {
        self.get(&format!("/v1/products/{sku}")).await.expect(200)
    }

    /// Waits until this many units are available.
    pub async fn until_available(&self, sku: &str, units: i64) {
        testkit::eventually(SOON, &format!("{units} of {sku} are available"), async || {
            let seen = self.product(sku).await;
            if seen["available"] == units { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }

    /// Registers a new product with this stock and waits until it can be ordered; its sku.
    pub async fn new_product(&self, stock: u32, changes: &Value) -> String {
        let sku = testkit::unique("SKU", '-').to_uppercase();
        let asked = Instant::now();
        loop {
            let answer =
                self.put(&format!("/v1/admin/products/{sku}"), &product_body(&sku, stock, changes)).await;
            // 200: a try before this one, whose answer was that the node has no time, went through all the same.
            if matches!(answer.status.as_u16(), 200..=202) {
                break;
            }
            let has_no_time = answer.body["code"] == "unavailable" && asked.elapsed() < SOON;
            assert!(has_no_time, "{}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        testkit::eventually(SOON, "the product can be read", async || {
            match self.get(&format!("/v1/products/{sku}")).await.status {
                StatusCode::OK => Ok(()),
                status => Err(status),
            }
        })
        .await;
        sku
    }
}

/// Body of a product with that name; `changes` win.
pub fn product_body(name: &str, stock: u32, changes: &Value) -> Value {
    let mut body = json!({
        "name": name, "option": null, "category": "shoes", "kind": "limited",
        "price": {"amount": 129_000, "currency": "KRW"}, "sale": null, "limit_per_customer": null,
        "initial_stock": stock,
    });
    if let (Some(body), Some(changes)) = (body.as_object_mut(), changes.as_object()) {
        body.extend(changes.clone());
    }
    body
}

/// Body of an order.
pub fn order_body(lines: &[(&str, u32)], method: Option<&str>) -> Value {
    let lines: Vec<Value> =
        lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
    match method {
        Some(method) => json!({"lines": lines, "payment": {"method": method}}),
        None => json!({"lines": lines}),
    }
}
