//! Live answers: waiting for the outcome, and following an order.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use system_tests::{Answer, Client, order_body};

use crate::system;

/// Longer than anything here takes.
const WITHIN: Duration = Duration::from_secs(60);

async fn order_waiting(client: &Client, sku: &str, method: Option<&str>, prefer: &str) -> Answer {
    let request = client.request(Method::POST, "/v1/orders").header("prefer", prefer).timeout(WITHIN);
    client.send(request.json(&order_body(&[(sku, 1)], method))).await
}

/// A followed order, as a client reads it.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(client: &Client, order: &str, last: Option<i64>) -> Self {
        let path = format!("/v1/orders/{order}/events");
        let request = client.request(Method::GET, &path).timeout(WITHIN);
        let request = match last {
            Some(last) => request.header("last-event-id", last.to_string()),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next order; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                let event = (field("event:"), field("id:"), field("data:"));
                self.text = rest.to_owned();
                if let (Some(name), Some(id), Some(data)) = event {
                    let order: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!((name.as_str(), id), ("order", order["version"].to_string()));
                    return Some(order);
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// All orders until the end.
    async fn rest(mut self) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(order) = self.next().await {
            seen.push(order);
        }
        seen
    }
}

fn versions(seen: &[Value]) -> Vec<i64> {
    seen.iter().map(|order| order["version"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn o3_whoever_waits_knows_at_once_whether_they_got_it() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    for (node, method, state) in [
        (0, Some("tok_approve"), "PAID"),
        (1, None, "AWAITING_PAYMENT"),
        (1, Some("tok_decline"), "COMPENSATING"),
    ] {
        let answer = order_waiting(&customer.at(node), &sku, method, "wait=20").await;
        assert_eq!(answer.headers["preference-applied"], "wait=20");
        let location = answer.location().to_owned();
        let order = answer.expect(201);
        assert_eq!(location, format!("/v1/orders/{}", order["id"].as_str().unwrap()));
        // A compensation may be done before anybody looks.
        let found = order["state"].as_str().unwrap();
        assert!(found == state || (state == "COMPENSATING" && found == "PAYMENT_FAILED"), "{order}");
    }
    // A charge that takes three seconds: not yet after one, there within ten.
    let answer = order_waiting(&customer, &sku, Some("tok_slow"), "wait=1").await;
    assert_eq!(answer.headers["preference-applied"], "wait=1");
    assert_eq!(answer.expect(202)["state"], "CHARGING");
    let answer = order_waiting(&customer, &sku, None, "handling=strict").await;
    assert!(!answer.headers.contains_key("preference-applied"));
    answer.expect(202);
}

#[tokio::test]
async fn o3_a_payment_can_be_waited_for() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let order = order_waiting(&customer, &sku, None, "wait=20").await.expect(201);
    let path = format!("/v1/orders/{}/payment", order["id"].as_str().unwrap());
    let pay = |method: &'static str| {
        let request = customer.at(1).request(Method::POST, &path).header("prefer", "wait=20");
        let request = request.timeout(WITHIN).json(&json!({"method": method}));
        let customer = customer.clone();
        async move { customer.send(request).await }
    };
    let began = Instant::now();
    let answer = pay("tok_slow").await;
    assert_eq!(answer.headers["preference-applied"], "wait=20");
    let paid = answer.expect(202);
    assert_eq!(paid["state"], "PAID");
    assert!(began.elapsed() > Duration::from_secs(2), "it was waited for");
    pay("tok_approve").await.expect_problem(409, "already_paid");
}

#[tokio::test]
async fn o15_an_order_is_followed_live_on_any_node_to_its_end() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.at(0).ordered(&sku, 1, Some("tok_approve")).await;
    let here = Stream::open(&customer.at(0), &id, None).await;
    let mut there = Stream::open(&customer.at(1), &id, None).await;
    // A client that loses its connection on the way goes on at another node, with nothing twice.
    let first = there.next().await.unwrap();
    drop(there);
    let version = first["version"].as_i64().unwrap();
    let resumed = Stream::open(&customer.at(0), &id, Some(version)).await;
    let (here, resumed) = tokio::join!(here.rest(), resumed.rest());
    for seen in [&here, &resumed] {
        let versions = versions(seen);
        assert!(versions.is_sorted_by(|earlier, later| earlier < later), "{versions:?}");
        let last = seen.last().unwrap();
        assert_eq!((&last["state"], &last["final"]), (&json!("DELIVERED"), &json!(true)), "{last}");
        assert_eq!(seen.iter().filter(|order| order["final"] == true).count(), 1);
    }
    assert!(versions(&resumed)[0] > version);
    let states: Vec<&str> = here.iter().map(|order| order["state"].as_str().unwrap()).collect();
    for state in ["PAID", "SHIPPED"] {
        assert!(states.contains(&state), "{state} was not seen live: {states:?}");
    }
    // Whoever comes late gets the end, and the end of the stream.
    for node in 0..2 {
        let late = Stream::open(&customer.at(node), &id, None).await.rest().await;
        assert_eq!(late.len(), 1);
        assert_eq!(late[0], *here.last().unwrap());
    }
    let other = system.customer();
    other.get(&format!("/v1/orders/{id}/events")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn o15_many_orders_are_followed_from_their_first_moment() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(200, &json!({})).await;
    let all = join_all((0..100).map(|number| {
        let (customer, sku) = (customer.clone(), sku.clone());
        async move {
            let id = customer.at(number % 2).ordered(&sku, 1, Some("tok_decline")).await;
            Stream::open(&customer.at((number + 1) % 2), &id, None).await.rest().await
        }
    }));
    for seen in all.await {
        assert!(versions(&seen).is_sorted_by(|earlier, later| earlier < later));
        let last = seen.last().unwrap();
        assert_eq!((&last["state"], &last["reason"]), (&json!("PAYMENT_FAILED"), &json!("declined")));
    }
}
