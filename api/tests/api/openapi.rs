//! The API's own description: current, valid, and what the api really answers.

use std::path::PathBuf;
use std::process::Command;

use reqwest::{Method, RequestBuilder, StatusCode};
use schemas::{OrderState, Topic};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Node, World, admin_token, changed, customer_token, new_customer, now, one_of, placed, product_data, won,
};

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What the validator says; it comes with `scripts/setup.sh --test`.
fn validate(arguments: &[PathBuf]) -> String {
    let python = repository().join("target/test-tools/python/bin/python");
    assert!(python.is_file(), "{} is missing: run scripts/setup.sh --test", python.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/validate_openapi.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
    said.trim().to_owned()
}

#[test]
fn x5_the_committed_document_is_current_and_valid_openapi_3_1_and_its_examples_meet_its_schemas() {
    let file = repository().join("docs/openapi.json");
    let committed = std::fs::read_to_string(&file).unwrap();
    let current = api::openapi_json().unwrap() + "\n";
    assert!(committed == current, "docs/openapi.json is out of date: run `make docs`");
    let document: Value = serde_json::from_str(&committed).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let examples: usize = validate(&[file]).parse().unwrap();
    assert!(examples > 100, "{examples}");
}

/// Requests, and what came back.
struct Recorder<'a> {
    node: &'a Node,
    lines: Vec<String>,
}

impl Recorder<'_> {
    /// Sends it, and expects this status. `path` is the documented one.
    async fn send(&mut self, request: RequestBuilder, method: &str, path: &str, status: u16) -> Value {
        let response = request.send().await.unwrap();
        let found = response.status().as_u16();
        let headers: serde_json::Map<String, Value> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
            .collect();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        assert_eq!(found, status, "{method} {path}: {body}");
        let line =
            json!({"method": method, "path": path, "status": status, "headers": headers, "body": body});
        self.lines.push(line.to_string());
        body
    }

    async fn get(&mut self, path: &str, id: &str, token: Option<&str>, status: u16) -> Value {
        let request = self.node.request(Method::GET, &filled(path, id), token);
        self.send(request, "GET", path, status).await
    }

    async fn post(&mut self, path: &str, id: &str, token: Option<&str>, body: &Value, status: u16) -> Value {
        let request = self.node.request(Method::POST, &filled(path, id), token);
        self.send(request.json(body), "POST", path, status).await
    }
}

fn filled(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{sku}", id)
}

const ORDERS: &str = "/v1/orders";
const ORDER: &str = "/v1/orders/{id}";
const CANCELLATION: &str = "/v1/orders/{id}/cancellation";
const PAYMENT: &str = "/v1/orders/{id}/payment";
const EVENTS: &str = "/v1/orders/{id}/events";
const PRODUCTS: &str = "/v1/products";
const PRODUCT: &str = "/v1/products/{sku}";
const DEFINE: &str = "/v1/admin/products/{sku}";
const RESTOCK: &str = "/v1/admin/products/{sku}/restock";
const CHANGE: &str = "/v1/admin/stock-changes/{id}";

#[tokio::test(flavor = "multi_thread")]
async fn x5_what_the_api_answers_is_what_its_document_says() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.edge.customer = serde_json::from_value(json!({"per_second": 1, "burst": 40})).unwrap();
    let node = Node::start(settings).await;
    let customer = new_customer();
    let (token, admin) = (customer_token(customer), admin_token());
    let (token, admin) = (Some(token.as_str()), Some(admin.as_str()));
    let sku = world.product(&node, won(1_000)).await;
    let mut at = Recorder { node: &node, lines: Vec::new() };
    health_and_catalogue(&mut at, sku.as_str()).await;
    bad_orders(&mut at, token, &one_of(&sku)).await;

    let order = at.post(ORDERS, "", token, &one_of(&sku), 202).await;
    let id = order["id"].as_str().unwrap().to_owned();
    at.get(ORDER, &id, token, 200).await;
    at.get(ORDERS, "", token, 200).await;
    at.post(CANCELLATION, &id, token, &json!({}), 202).await;
    at.post(PAYMENT, &id, token, &json!({"method": "tok_approve"}), 202).await;
    at.post(PAYMENT, &id, token, &json!({"method": ""}), 422).await;
    at.get(ORDER, &Uuid::nil().to_string(), token, 404).await;
    final_order(&world, &mut at, token, customer).await;
    admins_calls(&mut at, sku.as_str(), token, admin).await;
    for _ in 0..60 {
        let status = node.get(ORDERS, token).await.status();
        assert!(status == StatusCode::OK || status == StatusCode::TOO_MANY_REQUESTS);
    }
    at.get(ORDERS, "", token, 429).await;

    let exchanges = world.dir.join("exchanges.jsonl");
    std::fs::write(&exchanges, at.lines.join("\n")).unwrap();
    let checked = validate(&[repository().join("docs/openapi.json"), exchanges]);
    assert_eq!(checked, at.lines.len().to_string());
}

async fn health_and_catalogue(at: &mut Recorder<'_>, sku: &str) {
    at.get("/healthz", "", None, 200).await;
    at.get("/readyz", "", None, 200).await;
    at.get(PRODUCTS, "", None, 200).await;
    at.get(PRODUCT, sku, None, 200).await;
    at.get(PRODUCT, "NO-SUCH-SKU", None, 404).await;
    let tag = at.node.get(&filled(PRODUCT, sku), None).await.headers()["etag"].clone();
    let known = at.node.request(Method::GET, &filled(PRODUCT, sku), None).header("if-none-match", tag);
    at.send(known, "GET", PRODUCT, 304).await;
    let wrong = at.node.request(Method::GET, "/v1/products?limit=0", None);
    at.send(wrong, "GET", PRODUCTS, 422).await;
    let wrong = at.node.request(Method::GET, "/v1/products?after=x", None);
    at.send(wrong, "GET", PRODUCTS, 422).await;
}

async fn bad_orders(at: &mut Recorder<'_>, token: Option<&str>, good: &Value) {
    at.post(ORDERS, "", None, good, 401).await;
    at.get(DEFINE.trim_end_matches("{sku}"), "", None, 404).await;
    at.lines.pop();
    at.post(ORDERS, "", token, &json!({"lines": []}), 422).await;
    at.post(ORDERS, "", token, &json!({"lines": [{"sku": "NO-SUCH-SKU", "quantity": 1}]}), 422).await;
    let mut later = good.clone();
    later["points"] = json!(5);
    at.post(ORDERS, "", token, &later, 422).await;
    let post = |node: &Node| node.request(Method::POST, ORDERS, token);
    let broken = post(at.node).header("content-type", "application/json").body("{");
    at.send(broken, "POST", ORDERS, 400).await;
    let text = post(at.node).header("content-type", "text/plain").body("{}");
    at.send(text, "POST", ORDERS, 415).await;
    let large = post(at.node).json(&json!({"lines": [], "padding": "x".repeat(70_000)}));
    at.send(large, "POST", ORDERS, 413).await;
    let reused = post(at.node).header("idempotency-key", "k").json(good);
    at.send(reused, "POST", ORDERS, 202).await;
    let mut other = good.clone();
    other["lines"][0]["quantity"] = json!(2);
    let reused = post(at.node).header("idempotency-key", "k").json(&other);
    at.send(reused, "POST", ORDERS, 422).await;
}

/// An order whose stream has an end.
async fn final_order(
    world: &World,
    at: &mut Recorder<'_>,
    token: Option<&str>,
    customer: domain_types::CustomerId,
) {
    let id = domain_types::OrderId(Uuid::now_v7());
    world.event(id, placed(customer, now())).await;
    let mut ended = changed(3, OrderState::Cancelled, now());
    ended.is_final = true;
    world.event(id, ended).await;
    world.caught_up(Topic::OrderEvents).await;
    let id = id.to_string();
    let order = at.get(ORDER, &id, token, 200).await;
    assert_eq!(order["final"], true);
    at.get(EVENTS, &id, token, 200).await;
    let seen = at.node.request(Method::GET, &filled(EVENTS, &id), token).header("last-event-id", "3");
    at.send(seen, "GET", EVENTS, 204).await;
    let wrong = at.node.request(Method::GET, &filled(EVENTS, &id), token).header("last-event-id", "x");
    at.send(wrong, "GET", EVENTS, 400).await;
}

async fn admins_calls(at: &mut Recorder<'_>, sku: &str, token: Option<&str>, admin: Option<&str>) {
    let product = domain_types::Sku::new("OPENAPI-NEW").unwrap();
    let mut body = serde_json::to_value(product_data(&product, won(5))).unwrap();
    let put = |node: &Node, token, body: &Value| {
        node.request(Method::PUT, "/v1/admin/products/OPENAPI-NEW", token).json(body)
    };
    at.send(put(at.node, admin, &body), "PUT", DEFINE, 422).await;
    body["initial_stock"] = json!(5);
    at.send(put(at.node, token, &body), "PUT", DEFINE, 403).await;
    let change = at.send(put(at.node, admin, &body), "PUT", DEFINE, 202).await;
    at.get(CHANGE, change["id"].as_str().unwrap(), admin, 200).await;
    at.get(CHANGE, "nothing", admin, 404).await;
    body["name"] = json!(format!("Product {sku}"));
    at.send(put(at.node, admin, &body), "PUT", DEFINE, 409).await;
    let restock = |node: &Node| node.request(Method::POST, &filled(RESTOCK, sku), admin);
    let units = json!({"quantity": 1, "reason": "delivery"});
    at.send(restock(at.node).json(&units), "POST", RESTOCK, 422).await;
    let keyed = restock(at.node).header("idempotency-key", "r").json(&units);
    at.send(keyed, "POST", RESTOCK, 202).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x5_the_document_and_the_page_to_try_it_come_from_the_node_alone() {
    let world = World::shared().await;
    let node = world.node().await;
    let response = node.get("/openapi.json", None).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let served: Value = response.json().await.unwrap();
    assert_eq!(served, serde_json::from_str::<Value>(&api::openapi_json().unwrap()).unwrap());

    let page = node.get("/docs", None).await;
    assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/docs/"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let html = page.text().await.unwrap();
    let assets: Vec<&str> = html
        .split(['"', '\''])
        .filter(|word| [".js", ".css", ".png"].iter().any(|ending| word.ends_with(ending)))
        .collect();
    assert!(assets.len() >= 3, "{html}");
    for asset in assets {
        assert!(!asset.contains("//"), "{asset} comes from elsewhere");
        let response = node.get(&format!("/docs/{}", asset.trim_start_matches("./")), None).await;
        assert_eq!(response.status(), StatusCode::OK, "{asset}");
    }
    // A script inside the page would be stopped by the policy.
    for script in html.split("<script").skip(1) {
        assert!(script.split('>').next().unwrap().contains("src="), "{script}");
    }
    let starter = node.get("/docs/swagger-initializer.js", None).await.text().await.unwrap();
    assert!(starter.contains("/openapi.json") && !starter.contains("http"), "{starter}");
}
