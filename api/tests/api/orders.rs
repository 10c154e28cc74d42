//! Reading orders: the projection, lists.

use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use reqwest::StatusCode;
use schemas::{OrderEvent, OrderState, PaymentMethod, PaymentState, PaymentView, Reason};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    World, changed, customer_token, new_customer, one_of, order_at, placed, problem, read, won,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_projection_ignores_what_is_not_newer_and_version_never_goes_back() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let (id, next) = (OrderId(Uuid::now_v7()), OrderId(Uuid::now_v7()));
    let at = Timestamp::from_millis(1_795_237_200_000);
    let later = at.plus(Duration::from_secs(5));
    let mut paid = changed(3, OrderState::Paid, later);
    paid.payment = Some(PaymentView {
        state: PaymentState::Approved,
        method: PaymentMethod("tok_approve".into()),
        charged: Some(won(2_000)),
        refunded: None,
        at: later,
    });
    paid.return_before = Some(later);
    world.event(id, OrderEvent::from(placed(customer, at))).await;
    world.event(id, paid).await;
    let order = order_at(&node, &token, id, 3).await;
    assert_eq!(
        (order["state"].as_str(), order["payment"]["charged"]["amount"].as_i64()),
        (Some("PAID"), Some(2_000))
    );
    assert!(order["payment"]["refunded"].is_null());
    assert_eq!(order["created_at"], "2026-11-21T05:00:00.000Z");
    assert_eq!(order["updated_at"], "2026-11-21T05:00:05.000Z");
    assert_eq!(order["pay_before"], "2026-11-21T05:15:00.000Z");
    let states: Vec<&Value> =
        order["history"].as_array().unwrap().iter().map(|entry| &entry["state"]).collect();
    assert_eq!(states, ["ACCEPTED", "RESERVING", "PAID"]);

    // A zombie's late publications, the first event included, and then news.
    world.event(id, OrderEvent::from(placed(customer, later))).await;
    let mut stale = changed(3, OrderState::Rejected, later);
    stale.reason = Some(Reason::SoldOut);
    world.event(id, stale).await;
    world.event(id, changed(4, OrderState::Shipped, later)).await;
    for node in [&node, &other] {
        let order = order_at(node, &token, id, 4).await;
        assert_eq!((order["version"].as_i64(), order["state"].as_str()), (Some(4), Some("SHIPPED")));
        assert_eq!(order["history"].as_array().unwrap().len(), 4);
        assert_eq!(order["payment"]["state"], "approved");
    }
    // A gap is set aside with what follows of that order; others go on.
    world.event(id, changed(6, OrderState::Delivered, later)).await;
    world.event(next, OrderEvent::from(placed(customer, at))).await;
    order_at(&node, &token, next, 2).await;
    testkit::eventually(crate::support::SOON, "the gap is parked", async || {
        let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM messaging_parked WHERE parking_key = $1")
            .bind(id.to_string())
            .fetch_one(&world.pool)
            .await
            .unwrap();
        if parked == 1 { Ok(()) } else { Err(parked) }
    })
    .await;
    assert_eq!(order_at(&node, &token, id, 4).await["version"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_own_orders_newest_first_page_by_page() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let start = Timestamp::from_millis(1_795_237_200_000);
    let mut ids = Vec::new();
    for number in 0..7_u64 {
        let id = OrderId(Uuid::now_v7());
        // Two of the same instant: the id decides.
        let at = start.plus(Duration::from_millis(number / 2));
        world.event(id, OrderEvent::from(placed(customer, at))).await;
        if number % 3 == 0 {
            world.event(id, changed(3, OrderState::Cancelled, at)).await;
        }
        ids.push((at, id));
    }
    world.event(OrderId(Uuid::now_v7()), OrderEvent::from(placed(new_customer(), start))).await;
    for (number, (_, id)) in ids.iter().enumerate() {
        order_at(&node, &token, *id, if number % 3 == 0 { 3 } else { 2 }).await;
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let expected: Vec<String> = ids.iter().map(|(_, id)| id.to_string()).collect();

    let mut found = Vec::new();
    let mut query = "limit=3".to_owned();
    let mut cursor = String::new();
    loop {
        let (status, page) = read(node.get(&format!("/v1/orders?{query}"), Some(&token)).await).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3 && items.iter().all(|item| item["customer_id"] == json!(customer)));
        found.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = next.to_owned();
        query = format!("limit=3&after={next}");
    }
    assert_eq!(found, expected);
    let cancelled = "/v1/orders?state=CANCELLED,RETURNED";
    let (_, page) = read(node.get(cancelled, Some(&token)).await).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 3, "{page}");
    assert!(page["items"].as_array().unwrap().iter().all(|item| item["state"] == "CANCELLED"));
    assert!(page["next"].is_null());

    // A cursor is for the list that gave it out.
    let mut edited = cursor.clone().into_bytes();
    let middle = edited.len() / 2;
    edited[middle] = if edited[middle] == b'A' { b'B' } else { b'A' };
    let edited = String::from_utf8(edited).unwrap();
    let stranger = customer_token(new_customer());
    for (path, token) in [
        (format!("/v1/orders?after={edited}"), &token),
        (format!("/v1/orders?state=PAID&after={cursor}"), &token),
        (format!("/v1/products?after={cursor}"), &token),
        (format!("/v1/orders?after={cursor}"), &stranger),
    ] {
        problem(node.get(&path, Some(token)).await, 422, "invalid_cursor").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_get_right_behind_the_202_is_never_404_on_any_node() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    for _ in 0..30 {
        let id = node.place(&token, &one_of(&sku)).await;
        // The projection takes over while it is read.
        let path = format!("/v1/orders/{id}");
        let events = world.event(id, OrderEvent::from(placed(customer, crate::support::now())));
        let reads = async {
            let mut version = 0;
            for _ in 0..10 {
                let (status, order) = read(other.get(&path, Some(&token)).await).await;
                assert_eq!(status, StatusCode::OK, "{order}");
                let now = order["version"].as_i64().unwrap();
                assert!(now >= version, "{version} then {now}");
                version = now;
            }
        };
        tokio::join!(events, reads);
    }
}
