//! Who may do what, and what bad input is answered with.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, order_body};
use uuid::Uuid;

use crate::system;

#[tokio::test]
async fn x1_identity_comes_from_the_token_alone() {
    let system = system().await;
    let (admin, customer, other) = (system.admin(), system.customer(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 1, None).await;
    let path = format!("/v1/orders/{id}");
    for header in ["x-customer-id", "x-user-id", "x-forwarded-user"] {
        let request = other.request(Method::GET, &path).header(header, customer.id.to_string());
        other.send(request).await.expect_problem(404, "not_found");
    }
    let anonymous = Client::new(system.apis(), customer.id, String::new());
    let answer = anonymous.get(&path).await;
    answer.expect_problem(401, "unauthorized");
    assert!(answer.headers.contains_key("www-authenticate"));
    anonymous.product(&sku).await;
    for token in ["e30.e30.", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIwIn0.", "nonsense"] {
        let forged = Client::new(system.apis(), customer.id, token.to_owned());
        forged.get(&path).await.expect_problem(401, "unauthorized");
    }
    customer.put(&format!("/v1/admin/products/{sku}"), &json!({})).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn x4_bad_input_is_told_clearly_and_nothing_is_stored() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let max = json!({"price": {"amount": i64::MAX, "currency": "KRW"}});
    let dear = admin.new_product(5, &max).await;
    let line = |quantity: Value| json!({"lines": [{"sku": sku, "quantity": quantity}]});
    let lines = |count: usize| json!({"lines": vec![json!({"sku": sku, "quantity": 1}); count]});
    let cases = [
        (json!({"lines": []}), "/lines"),
        (lines(21), "/lines"),
        (line(json!(0)), "/lines/0/quantity"),
        (line(json!(-1)), "/lines/0/quantity"),
        (line(json!(2_147_483_648_u32)), "/lines/0/quantity"),
        (json!({"lines": [{"sku": "A\u{0}B", "quantity": 1}]}), "/lines/0/sku"),
        (json!({"lines": [{"sku": sku, "quantity": 1}], "surprise": 1}), "/surprise"),
        (json!({"lines": [{"sku": sku, "quantity": 1}], "coupon_id": Uuid::new_v4()}), "/coupon_id"),
    ];
    for (body, pointer) in cases {
        let answer = customer.post("/v1/orders", &body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        let named = answer.body["errors"].as_array().unwrap().iter().any(|error| error["pointer"] == pointer);
        assert!(named, "{pointer} is not named: {}", answer.body);
    }
    let overflow = customer.order(&dear, 2, None).await;
    assert_eq!(overflow.status, 422, "{}", overflow.body);
    customer.order("NO-SUCH-SKU", 1, None).await.expect_problem(422, "unknown_sku");
    let raw = |body: &'static str| customer.request(Method::POST, "/v1/orders").body(body);
    let json_type = ("content-type", "application/json");
    customer.send(raw("{").header(json_type.0, json_type.1)).await.expect_problem(400, "invalid_json");
    customer
        .send(raw("{}").header("content-type", "text/plain"))
        .await
        .expect_problem(415, "unsupported_media_type");
    let large = json!({"lines": [{"sku": sku, "quantity": 1}], "padding": "x".repeat(65 * 1024)});
    customer.post("/v1/orders", &large).await.expect_problem(413, "body_too_large");
    for (path, status) in
        [("/v1/orders?limit=0", 422), ("/v1/orders?limit=101", 422), ("/v1/orders?after=edited", 422)]
    {
        let answer = customer.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
    }
    let request = customer.request(Method::POST, "/v1/orders").header("idempotency-key", "k".repeat(256));
    let long_key = customer.send(request.json(&order_body(&[(&sku, 1)], None))).await;
    assert_eq!(long_key.status, 422, "{}", long_key.body);
    customer.get("/v1/nothing").await.expect_problem(404, "not_found");
    customer.get("/v1/orders/no-uuid").await.expect_problem(404, "not_found");
    assert_eq!(customer.get("/v1/orders").await.expect(200)["items"], json!([]), "nothing was stored");
    let seen = customer.get("/v1/orders").await;
    for header in ["traceresponse", "x-request-id"] {
        assert!(seen.headers.contains_key(header), "{header}");
    }
    let metrics = customer.get("/metrics").await;
    assert_eq!(metrics.status, 404, "metrics are not public");
}
