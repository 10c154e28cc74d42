//! Cancelling, delivery, returns.

use serde_json::json;

use crate::system;

#[tokio::test]
async fn o11_cancelling_a_paid_order_refunds_and_restocks_once() {
    let system = system().await;
    let (admin, customer, other) = (system.admin(), system.customer(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 2, Some("tok_approve")).await;
    customer.until(&id, &["PAID"]).await;
    let path = format!("/v1/orders/{id}/cancellation");
    other.post(&path, &json!({})).await.expect_problem(404, "not_found");
    let answer = customer.post(&path, &json!({})).await.expect(202);
    assert!(["COMPENSATING", "CANCELLED"].contains(&answer["state"].as_str().unwrap()), "{answer}");
    let ended = customer.until(&id, &["CANCELLED"]).await;
    assert_eq!(ended["payment"]["refunded"], ended["payment"]["charged"]);
    assert_eq!(ended["requests"][0]["outcome"], "done");
    customer.until_available(&sku, 5).await;
    customer.post(&path, &json!({})).await.expect_problem(409, "not_cancellable");
    let ended = customer.see(&id).await;
    // Its delivery timers no longer apply: a day later it is still cancelled.
    let later = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&later, &["SHIPPED"]).await;
    let still = customer.see(&id).await;
    assert_eq!((&still["state"], &still["version"]), (&json!("CANCELLED"), &ended["version"]));
    customer.until_available(&sku, 4).await;
}

#[tokio::test]
async fn o11_cancelling_while_waiting_or_charging_gives_everything_back() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let waiting = customer.ordered(&sku, 1, None).await;
    customer.until(&waiting, &["AWAITING_PAYMENT"]).await;
    let charging = customer.ordered(&sku, 1, Some("tok_slow")).await;
    customer.until(&charging, &["CHARGING"]).await;
    for id in [&waiting, &charging] {
        customer.post(&format!("/v1/orders/{id}/cancellation"), &json!({})).await.expect(202);
        let ended = customer.until(id, &["CANCELLED"]).await;
        assert_eq!(ended["payment"]["refunded"], ended["payment"]["charged"], "nothing is kept");
    }
    customer.until_available(&sku, 5).await;
}

#[tokio::test]
async fn o12_o11_an_order_is_shipped_and_delivered_and_can_then_not_be_cancelled() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&id, &["SHIPPED"]).await;
    let cancel = customer.post(&format!("/v1/orders/{id}/cancellation"), &json!({})).await;
    cancel.expect_problem(409, "already_shipped");
    let back = customer.post(&format!("/v1/orders/{id}/return"), &json!({})).await;
    back.expect_problem(409, "not_delivered");
    let delivered = customer.until(&id, &["DELIVERED"]).await;
    assert_eq!(delivered["final"], false);
    assert!(delivered["return_before"].is_string());
    let closed = customer.until_order(&id, "its return window closes", |order| order["final"] == true).await;
    assert_eq!(closed["state"], "DELIVERED");
    let late = customer.post(&format!("/v1/orders/{id}/return"), &json!({})).await;
    late.expect_problem(409, "return_window_closed");
}

#[tokio::test]
async fn o13_a_delivered_order_can_be_returned_once() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 2, Some("tok_approve")).await;
    customer.until(&id, &["DELIVERED"]).await;
    let path = format!("/v1/orders/{id}/return");
    let asked = customer.post(&path, &json!({})).await.expect(202);
    assert_eq!(asked["state"], "RETURN_REQUESTED");
    customer.post(&path, &json!({})).await.expect_problem(409, "not_delivered");
    let ended = customer.until(&id, &["RETURNED"]).await;
    assert_eq!(ended["final"], true);
    assert_eq!(ended["payment"]["refunded"], ended["payment"]["charged"]);
    customer.until_available(&sku, 5).await;
}
