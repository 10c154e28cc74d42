//! The intake: one order per key, on every node.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use domain_types::OrderId;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use schemas::{OrderSagaMessage, Topic};
use serde_json::json;
use testkit::eventually;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::support::{
    Node, SOON, World, customer_token, id_of, new_customer, one_of, order_at, placed, problem, read, won,
};

#[tokio::test(flavor = "multi_thread")]
async fn o1_an_accepted_order_is_in_the_log_with_what_the_catalogue_said() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let customer = new_customer();
    let token = customer_token(customer);
    let (a, b) = (world.product(&node, won(1_500)).await, world.product(&node, won(200)).await);
    let (first, second) = if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
    let body = json!({
        "lines": [{"sku": second, "quantity": 1}, {"sku": first, "quantity": 2}, {"sku": second, "quantity": 3}],
        "payment": {"method": "tok_approve"},
    });
    let response = node.post("/v1/orders", &token, &body).await;
    let headers = response.headers().clone();
    let (status, order) = read(response).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    let id = id_of(&order);
    assert_eq!(headers["location"], format!("/v1/orders/{id}"));
    let total = if first == a { 2 * 1_500 + 4 * 200 } else { 2 * 200 + 4 * 1_500 };
    assert_eq!(order["state"], "ACCEPTED");
    assert_eq!(order["version"], 1);
    assert_eq!(order["final"], false);
    assert_eq!(order["total"], json!({"amount": total, "currency": "KRW"}));
    assert_eq!(order["amount_due"], order["total"]);
    assert_eq!(order["lines"][0]["sku"], json!(first));
    assert_eq!(order["lines"][1]["quantity"], 4);
    assert_eq!(order["lines"][0]["name"], format!("Product {first}"));
    assert_eq!(order["lines"][0]["option"], "blue");
    assert_eq!(order["history"][0]["state"], "ACCEPTED");
    for field in ["reason", "payment", "pay_before", "return_before"] {
        assert!(order.as_object().unwrap().contains_key(field) && order[field].is_null(), "{field}");
    }
    let (status, read_back) = read(node.get(&format!("/v1/orders/{id}"), Some(&token)).await).await;
    assert_eq!((status, &read_back), (StatusCode::OK, &order));

    let commands = log.commands(id, 1).await;
    let OrderSagaMessage::PlaceOrder(command) = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(command.customer_id, customer);
    assert_eq!(command.lines.len(), 2);
    assert_eq!((&command.lines[0].sku, command.lines[0].quantity.get()), (&first, 2));
    assert_eq!(command.lines[0].product_version, 1);
    assert_eq!(command.payment_method.as_ref().unwrap().0, "tok_approve");
    assert_eq!(command.fingerprint.len(), 64);
    assert!(command.policy.is_some());
    let record = &log.of_key(&id.to_string())[0];
    assert_eq!(command.publish_before.since(record.time).as_secs(), 29);
    let trace = headers["traceresponse"].to_str().unwrap();
    assert_eq!(record.traceparent(), Some(trace));
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_the_same_key_names_the_same_order_and_another_body_is_refused() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let body = one_of(&sku);
    let (status, first) = read(node.order_with_key(&token, "k1", &body).await).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let same = json!({"lines": [{"quantity": 1, "sku": sku}], "payment": null});
    let response = other.order_with_key(&token, "k1", &same).await;
    assert_eq!(response.headers()["location"], format!("/v1/orders/{}", id_of(&first)));
    let (status, repeat) = read(response).await;
    assert_eq!((status, &repeat), (StatusCode::ACCEPTED, &first));
    let different = json!({"lines": [{"sku": sku, "quantity": 2}]});
    let refused = other.order_with_key(&token, "k1", &different).await;
    problem(refused, 422, "idempotency_key_reused").await;
    // Even with a body that can't be ordered any more, the key is taken.
    let gone = json!({"lines": [{"sku": "NO-SUCH", "quantity": 2}]});
    problem(node.order_with_key(&token, "k1", &gone).await, 422, "idempotency_key_reused").await;
    assert_eq!(world.intake_rows(customer).await, 1);
    // Another customer's key of the same name is another key.
    let stranger = customer_token(new_customer());
    let (status, theirs) = read(node.order_with_key(&stranger, "k1", &body).await).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_ne!(id_of(&theirs), id_of(&first));
    // A repeat shows the order as it is by now.
    let id = id_of(&first);
    world.event(id, schemas::OrderEvent::from(placed(customer, crate::support::now()))).await;
    order_at(&node, &token, id, 2).await;
    let (status, repeat) = read(other.order_with_key(&token, "k1", &body).await).await;
    assert_eq!((status, repeat["version"].as_i64()), (StatusCode::ACCEPTED, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_two_nodes_with_one_key_and_different_bodies_make_one_order() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let log = world.follow(Topic::OrderSaga);
    let sku = world.product(&node, won(1_000)).await;
    for round in 0..30 {
        let customer = new_customer();
        let token = customer_token(customer);
        let two = json!({"lines": [{"sku": sku, "quantity": 2}]});
        let one = one_of(&sku);
        let answers = join_all([
            node.order_with_key(&token, "k", &one),
            other.order_with_key(&token, "k", &two),
            node.order_with_key(&token, "k", &two),
            other.order_with_key(&token, "k", &one),
        ])
        .await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 202, 422, 422], "round {round}");
        assert_eq!(world.intake_rows(customer).await, 1, "round {round}");
        let id = OrderId(Uuid::new_v5(&customer.uuid(), b"k"));
        let commands = log.commands(id, 1).await;
        assert!(commands.iter().all(|command| *command == commands[0]), "round {round}: {commands:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_leave_its_order_half_way() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let sku = world.product(&node, won(1_000)).await;
    let body = one_of(&sku).to_string();
    let customer = new_customer();
    let token = customer_token(customer);
    let sent = AtomicI32::new(0);
    let hang_up = async || {
        let key = sent.fetch_add(1, Ordering::Relaxed);
        let mut stream = tokio::net::TcpStream::connect(node.addresses.public).await.unwrap();
        let request = format!(
            "POST /v1/orders HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    // How far each of them comes depends on how busy the node is.
    eventually(SOON, "some are kept although their client hung up", async || {
        for _again in 0..20 {
            hang_up().await;
        }
        if world.intake_rows(customer).await > 0 { Ok(()) } else { Err("none") }
    })
    .await;
    let sent = sent.into_inner();
    // Whatever was taken is in the log: nothing waits for the look after publish_before.
    eventually(SOON, "every kept order is published", async || {
        let kept = world.intake_rows(customer).await;
        let published = (0..sent)
            .filter(|key: &i32| {
                let id = Uuid::new_v5(&customer.uuid(), key.to_string().as_bytes());
                !log.of_key(&id.to_string()).is_empty()
            })
            .count();
        if kept > 0 && usize::try_from(kept).unwrap() == published {
            Ok(())
        } else {
            Err(format!("{published}/{kept}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_a_saga_is_published_once_more_unchanged() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.publish_within_ms = 300;
    settings.republish_after_ms = 200;
    let (node, _other) = (Node::start(settings.clone()).await, Node::start(settings).await);
    let log = world.follow(Topic::OrderSaga);
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let id = node.place(&token, &one_of(&sku)).await;
    let known = node.place(&token, &one_of(&sku)).await;
    world.event(known, schemas::OrderEvent::from(placed(customer, crate::support::now()))).await;
    order_at(&node, &token, known, 2).await;
    let commands = log.commands(id, 2).await;
    // Several looks later there is no more of it: one per node at most.
    let last = node.place(&token, &one_of(&sku)).await;
    log.commands(last, 2).await;
    let records = log.of_key(&id.to_string());
    assert!((2..=3).contains(&records.len()), "{}", records.len());
    assert!(records.iter().all(|record| record.value == records[0].value));
    assert!(commands.iter().all(|command| *command == commands[0]));
    assert_eq!(world.intake_rows(customer).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_orders_at_once_share_statements() {
    let world = World::shared().await;
    let node = world.node().await;
    let sku = world.product(&node, won(1_000)).await;
    let began = std::time::Instant::now();
    let answers =
        join_all(
            (0..300).map(|_| {
                let (node, sku) = (&node, &sku);
                async move {
                    node.post("/v1/orders", &customer_token(new_customer()), &one_of(sku)).await.status()
                }
            }),
        )
        .await;
    assert!(answers.iter().all(|status| *status == StatusCode::ACCEPTED), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let metrics = node.metrics().await;
    let figure = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(figure("api_intake_batch_orders_sum"), 300.0);
    assert!(figure("api_intake_batch_orders_count") < 200.0, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_publishes_what_was_kept_and_the_next_node_knows_it() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let sku = world.product(&node, won(1_000)).await;
    let customer = new_customer();
    let token = customer_token(customer);
    let requests: Vec<_> = (0..60)
        .map(|key| {
            let request = node.request(Method::POST, "/v1/orders", Some(&token));
            tokio::spawn(request.header("Idempotency-Key", key.to_string()).json(&one_of(&sku)).send())
        })
        .collect();
    eventually(SOON, "orders are under way", async || {
        let kept = world.intake_rows(customer).await;
        if kept > 0 { Ok(()) } else { Err(kept) }
    })
    .await;
    node.shut_down().await;
    let kept: Vec<Uuid> = sqlx::query_scalar("SELECT order_id FROM intake WHERE customer_id = $1")
        .bind(customer.uuid())
        .fetch_all(&world.pool)
        .await
        .unwrap();
    for id in &kept {
        log.commands(OrderId(*id), 1).await;
    }
    let mut accepted = 0;
    for request in requests {
        // Those that came too late were not answered, and not kept.
        if let Ok(response) = request.await.unwrap() {
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            accepted += 1;
        }
    }
    assert_eq!(accepted, kept.len());
    let next = world.node().await;
    for id in kept {
        let (status, order) = read(next.get(&format!("/v1/orders/{id}"), Some(&token)).await).await;
        assert_eq!(status, StatusCode::OK, "{order}");
    }
}
