//! Bad input: each with its answer, and nothing stored.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Node, World, admin_token, customer_token, new_customer, one_of, problem, won};

fn orders(node: &Node, token: &str) -> RequestBuilder {
    node.request(Method::POST, "/v1/orders", Some(token))
}

fn pointers(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn x4_every_bad_order_gets_its_answer_and_nothing_is_stored() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let dear = world.product(&node, won(9_000_000_000_000_000_000)).await;
    let euro = world.product(&node, domain_types::Money::new(1, domain_types::Currency::EUR)).await;
    let line = json!({"sku": sku, "quantity": 1});
    let quantity = |quantity: Value| json!({"lines": [{"sku": sku, "quantity": quantity}]});

    let cases = [
        (json!([]), "invalid_request", vec![("", "invalid_type")]),
        (json!({}), "invalid_request", vec![("/lines", "required")]),
        (json!({"lines": []}), "invalid_request", vec![("/lines", "out_of_range")]),
        (json!({"lines": vec![line.clone(); 21]}), "invalid_request", vec![("/lines", "out_of_range")]),
        (json!({"lines": [line], "note": 1}), "invalid_request", vec![("/note", "unknown_field")]),
        (quantity(json!(0)), "invalid_request", vec![("/lines/0/quantity", "out_of_range")]),
        (quantity(json!(-1)), "invalid_request", vec![("/lines/0/quantity", "out_of_range")]),
        (quantity(json!(2_147_483_648_u64)), "invalid_request", vec![("/lines/0/quantity", "out_of_range")]),
        (quantity(json!(1_000_001)), "invalid_request", vec![("/lines/0/quantity", "out_of_range")]),
        (quantity(json!(1.5)), "invalid_request", vec![("/lines/0/quantity", "invalid_type")]),
        (quantity(json!("1")), "invalid_request", vec![("/lines/0/quantity", "invalid_type")]),
        (
            json!({"lines": [{"sku": "A\u{0}", "quantity": 0, "a/b": 1}]}),
            "invalid_request",
            vec![
                ("/lines/0/sku", "invalid_sku"),
                ("/lines/0/quantity", "out_of_range"),
                ("/lines/0/a~1b", "unknown_field"),
            ],
        ),
        (
            json!({"lines": [line], "payment": {"method": "tok\u{0}"}}),
            "invalid_request",
            vec![("/payment/method", "invalid_text")],
        ),
        (json!({"lines": [line], "payment": {}}), "invalid_request", vec![("/payment/method", "required")]),
        (json!({"lines": [line], "coupon_id": "x"}), "not_available", vec![("/coupon_id", "not_available")]),
        (json!({"lines": [line], "points": 5}), "not_available", vec![("/points", "not_available")]),
        (
            json!({"lines": [line, {"sku": "NO-SUCH", "quantity": 1}]}),
            "unknown_sku",
            vec![("/lines", "unknown_sku")],
        ),
        (json!({"lines": [{"sku": dear, "quantity": 2}]}), "total_overflow", vec![]),
        (json!({"lines": [line, {"sku": euro, "quantity": 1}]}), "mixed_currencies", vec![]),
    ];
    for (body, code, expected) in cases {
        let found = problem(orders(&node, &token).json(&body).send().await.unwrap(), 422, code).await;
        if !expected.is_empty() {
            assert_eq!(pointers(&found), expected, "{body}");
        }
    }
    let with_type =
        |media: &str, body: Vec<u8>| orders(&node, &token).header("content-type", media).body(body).send();
    for broken in ["{", "{\"lines\":}", "", "\u{feff}{}", "{\"lines\": [1e999]}"] {
        let response = with_type("application/json", broken.into()).await.unwrap();
        problem(response, 400, "invalid_json").await;
    }
    problem(with_type("application/json", vec![0xff, 0xfe]).await.unwrap(), 400, "invalid_json").await;
    let good = one_of(&sku).to_string();
    problem(with_type("text/plain", good.clone().into()).await.unwrap(), 415, "unsupported_media_type").await;
    let untyped = orders(&node, &token).body(good).send().await.unwrap();
    problem(untyped, 415, "unsupported_media_type").await;
    let mut large = one_of(&sku).to_string();
    large.push_str(&" ".repeat(65 * 1024));
    problem(with_type("application/json", large.into()).await.unwrap(), 413, "body_too_large").await;
    for key in ["", "with blank", &"k".repeat(256)] {
        let request = orders(&node, &token).header("Idempotency-Key", key).json(&one_of(&sku));
        let found = problem(request.send().await.unwrap(), 422, "invalid_request").await;
        assert_eq!(pointers(&found), [("Idempotency-Key", "invalid_header")]);
    }
    assert_eq!(world.intake_rows(customer).await, 0);
    let longest = "k".repeat(255);
    assert_eq!(node.order_with_key(&token, &longest, &one_of(&sku)).await.status(), 202);
    assert_eq!(world.intake_rows(customer).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn x4_every_answer_that_is_no_success_is_a_problem_document() {
    let world = World::shared().await;
    let node = world.node().await;
    let token = customer_token(new_customer());
    problem(node.get("/v1/nothing", None).await, 404, "not_found").await;
    problem(node.get("/metrics", None).await, 404, "not_found").await;
    let wrong_method = node.request(Method::DELETE, "/v1/orders", Some(&token)).send().await.unwrap();
    assert!(wrong_method.headers().contains_key("allow"));
    problem(wrong_method, 405, "method_not_allowed").await;
    for path in
        ["/v1/orders/no-id", "/v1/orders/00000000-0000-0000-0000-000000000000", "/v1/products/no%20sku"]
    {
        problem(node.get(path, Some(&token)).await, 404, "not_found").await;
    }
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "state=OPEN",
        "state=",
        "unknown=1",
        "limit=1&limit=2",
        "after=%00",
    ] {
        let response = node.get(&format!("/v1/orders?{query}"), Some(&token)).await;
        let code = if query.starts_with("after") { "invalid_cursor" } else { "invalid_request" };
        problem(response, 422, code).await;
    }
    for query in ["limit=0", "colour=red", "sort=sku"] {
        problem(node.get(&format!("/v1/products?{query}"), None).await, 422, "invalid_request").await;
    }
    let admin = admin_token();
    let restock =
        node.post("/v1/admin/products/A/restock", &admin, &json!({"quantity": 1, "reason": "r"})).await;
    let found = problem(restock, 422, "invalid_request").await;
    assert_eq!(pointers(&found), [("Idempotency-Key", "required")]);
    problem(node.get("/v1/admin/stock-changes/x", Some(&admin)).await, 404, "not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_the_callers_trace_and_request_id() {
    let world = World::shared().await;
    let node = world.node().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let response = node
        .request(Method::GET, "/v1/products", None)
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("x-request-id", "mine")
        .send()
        .await
        .unwrap();
    assert!(response.headers()["traceresponse"].to_str().unwrap().starts_with(&format!("00-{trace}-")));
    assert_eq!(response.headers()["x-request-id"], "mine");
    let metrics = node.metrics().await;
    assert!(
        metrics.contains("api_http_requests_total{method=\"GET\",route=\"/v1/products\",status=\"200\"}")
    );
}
