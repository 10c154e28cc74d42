//! Kafka and PostgreSQL away: before, during and after a request.

use std::time::{Duration, Instant};

use domain_types::OrderId;
use local_stack::{Part, Signal};
use reqwest::StatusCode;
use schemas::Topic;
use testkit::eventually;
use uuid::Uuid;

use crate::support::{World, customer_token, id_of, new_customer, one_of, problem, read, won};

const BACK: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn kafka_stopped_before_an_order_keeps_nothing_and_stopped_during_one_tells_its_id() {
    let stack = testkit::private_stack("api-kafka").await;
    let world = World::on(&stack).await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let body = one_of(&sku);
    let (status, known) = read(node.order_with_key(&token, "known", &body).await).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{known}");

    // During: the broker takes the connection and says nothing.
    stack.signal_part(Part::Kafka, Signal::Stop).await.unwrap();
    let began = Instant::now();
    let response = node.order_with_key(&token, "during", &body).await;
    let took = began.elapsed();
    let id = OrderId(Uuid::new_v5(&customer.uuid(), b"during"));
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(response.headers()["location"], format!("/v1/orders/{id}"));
    let found = problem(response, 503, "outcome_unknown").await;
    assert_eq!(found["order_id"], id.to_string());
    let (status, order) = read(node.get(&format!("/v1/orders/{id}"), Some(&token)).await).await;
    assert_eq!((status, order["state"].as_str()), (StatusCode::OK, Some("ACCEPTED")));

    // By now it counts as away: nothing new is kept, but what was accepted is still found.
    eventually(BACK, "a frozen broker counts as away", async || {
        let response = node.order_with_key(&token, "before", &body).await;
        let retry = response.headers().contains_key("retry-after");
        let (status, problem) = read(response).await;
        if problem["code"] == "unavailable" && retry { Ok(()) } else { Err(format!("{status} {problem}")) }
    })
    .await;
    let kept = world.intake_rows(customer).await;
    let began = Instant::now();
    problem(node.order_with_key(&token, "another", &body).await, 503, "unavailable").await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(world.intake_rows(customer).await, kept);
    stack.signal_part(Part::Kafka, Signal::Continue).await.unwrap();

    // Back: no restart of anything; the repeat finds its order.
    let repeat = eventually(BACK, "the repeat is accepted", async || {
        let (status, order) = read(node.order_with_key(&token, "during", &body).await).await;
        if status == StatusCode::ACCEPTED { Ok(order) } else { Err(format!("{status} {order}")) }
    })
    .await;
    assert_eq!(id_of(&repeat), id);
    let log = world.follow(Topic::OrderSaga);
    let commands = log.commands(id, 1).await;
    assert!(commands.iter().all(|command| *command == commands[0]), "{commands:?}");

    // Stopped for real, and started again.
    stack.stop_part(Part::Kafka).await.unwrap();
    let before = world.intake_rows(customer).await;
    eventually(BACK, "a stopped broker counts as away", async || {
        let (status, problem) = read(node.post("/v1/orders", &token, &body).await).await;
        if problem["code"] == "unavailable" { Ok(()) } else { Err(format!("{status} {problem}")) }
    })
    .await;
    let kept = world.intake_rows(customer).await;
    assert!(kept <= before + 1, "{before} then {kept}");
    problem(node.post("/v1/orders", &token, &body).await, 503, "unavailable").await;
    assert_eq!(world.intake_rows(customer).await, kept);
    problem(node.get("/readyz", None).await, 503, "not_ready").await;
    let (status, again) = read(node.order_with_key(&token, "known", &body).await).await;
    assert_eq!((status, again), (StatusCode::ACCEPTED, known), "accepted orders are found without kafka");
    stack.start_part(Part::Kafka).await.unwrap();
    eventually(BACK, "orders are accepted again", async || {
        let (status, order) = read(node.post("/v1/orders", &token, &body).await).await;
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(format!("{status} {order}")) }
    })
    .await;
    node.wait_until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stopped_is_unavailable_and_once_back_nothing_is_lost() {
    let stack = testkit::private_stack("api-postgres").await;
    let world = World::on(&stack).await;
    let node = world.node().await;
    let token = customer_token(new_customer());
    let sku = world.product(&node, won(1_000)).await;
    let body = one_of(&sku);
    let (_, known) = read(node.order_with_key(&token, "known", &body).await).await;
    stack.stop_part(Part::Postgres).await.unwrap();
    for _ in 0..3 {
        let response = node.order_with_key(&token, "away", &body).await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503, "unavailable").await;
        problem(node.get(&format!("/v1/orders/{}", id_of(&known)), Some(&token)).await, 503, "unavailable")
            .await;
    }
    problem(node.get("/readyz", None).await, 503, "not_ready").await;
    assert_eq!(node.get("/healthz", None).await.status(), StatusCode::OK);
    stack.start_part(Part::Postgres).await.unwrap();
    eventually(BACK, "orders are accepted again", async || {
        let (status, order) = read(node.order_with_key(&token, "away", &body).await).await;
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(format!("{status} {order}")) }
    })
    .await;
    let (status, found) = read(node.get(&format!("/v1/orders/{}", id_of(&known)), Some(&token)).await).await;
    assert_eq!((status, found), (StatusCode::OK, known));
    node.wait_until_ready().await;
    world.product(&node, won(2)).await;
}
