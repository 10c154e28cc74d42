//! X6: one trace, as a collector that nobody here wrote decodes it.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, SOON, order_body};
use testkit::eventually;
use uuid::Uuid;

use crate::{collector, system};

/// A caller's `traceparent`, sampled, in a trace of its own.
fn caller() -> (String, String) {
    let trace = Uuid::new_v4().simple().to_string();
    (trace.clone(), format!("00-{trace}-00f067aa0ba902b7-01"))
}

async fn spans(trace: &str) -> Vec<Value> {
    let answer = reqwest::get(format!("{}/{trace}", collector())).await.unwrap();
    answer.json().await.unwrap()
}

/// The span of that name and service below `parent`.
fn below<'a>(spans: &'a [Value], parent: &str, service: &str, name: &str) -> Result<&'a Value, String> {
    let found: Vec<&Value> = spans
        .iter()
        .filter(|span| span["parent"] == parent && span["service"] == service && span["name"] == name)
        .collect();
    match found[..] {
        [span] => Ok(span),
        _ => Err(format!("{} spans {name} of {service} below {parent}: {spans:#?}", found.len())),
    }
}

fn id(span: &Value) -> &str {
    span["id"].as_str().unwrap()
}

async fn ordered_within(customer: &Client, sku: &str, traceparent: Option<&str>) -> (String, String) {
    let mut request = customer.request(Method::POST, "/v1/orders");
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = customer.send(request.json(&order_body(&[(sku, 1)], Some("tok_approve")))).await;
    let traceresponse = answer.headers["traceresponse"].to_str().unwrap().to_owned();
    let order = answer.expect(202)["id"].as_str().unwrap().to_owned();
    customer.until(&order, &["PAID"]).await;
    (order, traceresponse)
}

#[tokio::test]
async fn x6_one_trace_from_http_over_every_service_to_the_provider_and_back() {
    let system = system().await;
    let customer = system.customer();
    let sku = system.admin().new_product(5, &json!({})).await;
    let (_, untraced) = ordered_within(&customer, &sku, None).await;
    let (trace, traceparent) = caller();
    let (order, traceresponse) = ordered_within(&customer, &sku, Some(&traceparent)).await;

    let chain = async || {
        let all = spans(&trace).await;
        let request = below(&all, "00f067aa0ba902b7", "api", "POST /v1/orders")?;
        let placed = below(&all, id(request), "order-orchestrator", "PlaceOrder")?;
        let reserve = below(&all, id(placed), "stock-worker", "ReserveStock")?;
        let reserved = below(&all, id(reserve), "order-orchestrator", "StockReserved")?;
        let charge = below(&all, id(reserved), "payment-worker", "ChargePayment")?;
        let call = below(&all, id(charge), "payment-worker", "provider charge")?;
        let approved = below(&all, id(charge), "order-orchestrator", "PaymentApproved")?;
        let told = below(&all, id(approved), "api", "OrderChanged")?;
        let chain = [request, placed, reserve, reserved, charge, call, approved, told];
        Ok::<_, String>(chain.map(Clone::clone))
    };
    let chain = eventually(SOON, "the whole trace", chain).await;
    assert_eq!(
        traceresponse,
        format!("00-{trace}-{}-01", id(&chain[0])),
        "the answer names the exported span"
    );
    assert_eq!(chain[0]["attributes"]["http.response.status_code"], 202);
    assert_eq!(chain[5]["attributes"]["firstcome.provider.outcome"], "approved");
    for span in &chain[1..] {
        assert_eq!(span["attributes"]["firstcome.order_id"], order.as_str());
    }
    // Server, consumer, client; by this machine's one clock, each begins after its cause.
    let kinds: Vec<u64> = chain.iter().map(|span| span["kind"].as_u64().unwrap()).collect();
    assert_eq!(kinds, [2, 5, 5, 5, 5, 3, 5, 5]);
    assert!(chain.is_sorted_by_key(|span| span["began_ns"].as_u64().unwrap()), "{chain:#?}");
    assert!(
        chain
            .iter()
            .all(|span| span["failed"] == false && span["took_ns"].as_u64().unwrap() < 30_000_000_000)
    );
    assert!(chain.iter().all(|span| span["resource"]["service.namespace"] == "firstcome"));

    // Here nothing is sampled unless a caller asks for it, and what is not leaves nothing.
    let (_, rest) = untraced.split_at(3);
    assert!(untraced.ends_with("-00"), "{untraced}");
    assert_eq!(spans(rest.split('-').next().unwrap()).await, Vec::<Value>::new());
}

#[tokio::test]
async fn x4_the_trace_id_of_a_problem_is_the_exported_one() {
    let customer = system().await.customer();
    let (trace, traceparent) = caller();
    let request = customer.request(Method::POST, "/v1/orders").header("traceparent", traceparent);
    let answer = customer.send(request.json(&json!({"lines": []}))).await;
    assert_eq!((answer.status.as_u16(), answer.body["trace_id"].as_str()), (422, Some(trace.as_str())));
    let refused = eventually(SOON, "the span of the refused request", async || {
        spans(&trace).await.first().cloned().ok_or("no span")
    })
    .await;
    let traceresponse = answer.headers["traceresponse"].to_str().unwrap();
    assert_eq!(traceresponse, format!("00-{trace}-{}-01", id(&refused)));
    assert_eq!(refused["attributes"]["http.response.status_code"], 422);
    assert_eq!(refused["failed"], false, "a refusal is an answer");
}
