//! Placing orders, paying, and what comes back.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::order_body;
use uuid::Uuid;

use crate::system;

#[tokio::test]
async fn o1_an_order_is_accepted_with_its_location_and_becomes_paid() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let body = order_body(&[(&sku, 1), (&sku, 2)], Some("tok_approve"));
    let answer = customer.post("/v1/orders", &body).await;
    let (location, accepted) = (answer.location().to_owned(), answer.expect(202));
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/orders/{id}"));
    assert_eq!(accepted["state"], "ACCEPTED");
    assert_eq!(accepted["version"], 1);
    assert_eq!(accepted["lines"].as_array().unwrap().len(), 1, "duplicate lines are merged");
    assert_eq!(accepted["lines"][0]["quantity"], 3);
    assert_eq!(accepted["total"], json!({"amount": 387_000, "currency": "KRW"}));
    let paid = customer.until(id, &["PAID"]).await;
    assert_eq!(paid["payment"]["charged"], paid["amount_due"]);
    let states: Vec<&str> =
        paid["history"].as_array().unwrap().iter().map(|entry| entry["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ACCEPTED", "RESERVING", "CHARGING", "PAID"]);
    customer.until_available(&sku, 7).await;
}

#[tokio::test]
async fn o1_all_lines_are_reserved_or_none_is_kept() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let (plenty, scarce) = (admin.new_product(10, &json!({})).await, admin.new_product(1, &json!({})).await);
    let body = order_body(&[(&plenty, 2), (&scarce, 2)], Some("tok_approve"));
    customer.post("/v1/orders", &body).await.expect_problem(409, "sold_out");
    // The first line's ticket came back: all of it can be had.
    let all = customer.ordered(&plenty, 10, Some("tok_decline")).await;
    assert_eq!(customer.until(&all, &["PAYMENT_FAILED"]).await["final"], true);
    customer.until_available(&plenty, 10).await;
    customer.until_available(&scarce, 1).await;
}

#[tokio::test]
async fn o2_the_same_key_names_the_same_order_on_every_node() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let body = order_body(&[(&sku, 1)], Some("tok_approve"));
    let place = |node: usize, body: Value| {
        let client = customer.at(node);
        async move {
            let request =
                client.request(Method::POST, "/v1/orders").header("idempotency-key", "buy-1").json(&body);
            client.send(request).await
        }
    };
    let answers = join_all((0..10).map(|n| place(n % 2, body.clone()))).await;
    let ids: Vec<String> =
        answers.into_iter().map(|answer| answer.expect(202)["id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    customer.until(&ids[0], &["PAID"]).await;
    // The order of lines and fields does not matter; what is ordered does.
    let same = json!({"payment": {"method": "tok_approve"}, "lines": [{"quantity": 1, "sku": sku}]});
    assert_eq!(place(1, same).await.expect(202)["id"], ids[0]);
    place(0, order_body(&[(&sku, 2)], Some("tok_approve")))
        .await
        .expect_problem(422, "idempotency_key_reused");
    customer.until_available(&sku, 9).await;
    // Another customer's key is another key.
    let other = system.customer();
    let request = other.request(Method::POST, "/v1/orders").header("idempotency-key", "buy-1").json(&body);
    assert_ne!(other.send(request).await.expect(202)["id"], ids[0]);
}

#[tokio::test]
async fn o2_different_bodies_under_one_key_at_the_same_instant_make_one_order() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(100, &json!({})).await;
    for round in 0..10 {
        let key = format!("race-{round}");
        let place = |node: usize, quantity: u32| {
            let client = customer.at(node);
            let request = client
                .request(Method::POST, "/v1/orders")
                .header("idempotency-key", &key)
                .json(&order_body(&[(&sku, quantity)], None));
            async move { client.send(request).await }
        };
        let (first, second) = tokio::join!(place(0, 1), place(1, 2));
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 422], "{} {}", first.body, second.body);
    }
}

#[tokio::test]
async fn o4_o5_o6_a_thousand_buyers_for_a_hundred_units_buy_exactly_a_hundred_in_their_turn() {
    let system = system().await;
    let admin = system.admin();
    let sku = admin.new_product(100, &json!({})).await;
    // Ten customers with a hundred orders each: tokens are slow to make, orders are not.
    let customers: Vec<_> = (0..10).map(|_| system.customer()).collect();
    let answers = join_all((0..1_000).map(|n| {
        let (customer, sku) = (customers[n % 10].at(n % 2), sku.clone());
        async move {
            let answer = customer.post("/v1/orders", &order_body(&[(&sku, 1)], Some("tok_approve"))).await;
            (customer, answer)
        }
    }))
    .await;
    let mut sold = 0;
    for (customer, answer) in &answers {
        if answer.status.as_u16() == 409 {
            assert_eq!(answer.body["code"], "sold_out", "{}", answer.body);
            continue;
        }
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.body);
        let id = answer.body["id"].as_str().unwrap();
        let order = customer.until(id, &["PAID", "REJECTED", "SHIPPED", "DELIVERED"]).await;
        if order["state"] == "REJECTED" {
            assert_eq!(order["reason"], "sold_out");
        } else {
            sold += 1;
        }
    }
    assert_eq!(sold, 100);
    let out_of_turn = system.turns().await.violations;
    assert!(!out_of_turn.iter().any(|violation| violation.detail.contains(&sku)), "{out_of_turn:?}");
    let product = admin.product(&sku).await;
    assert_eq!((&product["available"], &product["sold_out"]), (&json!(0), &json!(true)));
    let stock = system.database("stock").await;
    let item: (i64, i64, i64, i64, i64) =
        sqlx::query_as("SELECT initial, restocked, available, held, sold FROM items WHERE sku = $1")
            .bind(&sku)
            .fetch_one(&stock)
            .await
            .unwrap();
    assert_eq!(item.0 + item.1, item.2 + item.3 + item.4);
    testkit::eventually(system_tests::SOON, "all holds are confirmed", async || {
        let sold: i64 = sqlx::query_scalar("SELECT sold FROM items WHERE sku = $1")
            .bind(&sku)
            .fetch_one(&stock)
            .await
            .unwrap();
        if sold == 100 { Ok(()) } else { Err(sold) }
    })
    .await;
}

#[tokio::test]
async fn o7_a_payment_that_fails_gives_every_line_back_once() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    for (method, reason) in [
        ("tok_decline", "declined"),
        ("tok_over_limit", "over_limit"),
        ("tok_abandon", "abandoned"),
        ("tok_unknown_decline", "declined"),
    ] {
        let (one, two) = (admin.new_product(5, &json!({})).await, admin.new_product(5, &json!({})).await);
        let body = order_body(&[(&one, 2), (&two, 3)], Some(method));
        let id = customer.post("/v1/orders", &body).await.expect(202)["id"].as_str().unwrap().to_owned();
        let ended = customer.until(&id, &["PAYMENT_FAILED"]).await;
        assert_eq!(ended["reason"], reason, "{method}");
        assert_eq!(ended["final"], true);
        assert_eq!(ended["payment"]["charged"], Value::Null);
        customer.until_available(&one, 5).await;
        customer.until_available(&two, 5).await;
    }
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 1, Some("tok_unknown_approve")).await;
    customer.until(&id, &["PAID", "SHIPPED"]).await;
}

#[tokio::test]
async fn o8_an_order_that_is_not_paid_in_time_expires_and_its_units_come_back() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(3, &json!({})).await;
    let id = customer.ordered(&sku, 3, None).await;
    let waiting = customer.until(&id, &["AWAITING_PAYMENT"]).await;
    assert!(waiting["pay_before"].is_string());
    customer.until_available(&sku, 0).await;
    let ended = customer.until(&id, &["EXPIRED"]).await;
    assert_eq!(ended["final"], true);
    customer.until_available(&sku, 3).await;
    let late = customer.post(&format!("/v1/orders/{id}/payment"), &json!({"method": "tok_approve"})).await;
    late.expect_problem(409, "not_payable");
}

#[tokio::test]
async fn o9_two_payments_at_once_charge_once_and_only_the_owner_pays() {
    let system = system().await;
    let (admin, customer, other) = (system.admin(), system.customer(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let id = customer.ordered(&sku, 1, None).await;
    customer.until(&id, &["AWAITING_PAYMENT"]).await;
    let path = format!("/v1/orders/{id}/payment");
    let body = json!({"method": "tok_approve"});
    other.post(&path, &body).await.expect_problem(404, "not_found");
    let (first, second) = (customer.at(0), customer.at(1));
    let (first, second) = tokio::join!(first.post(&path, &body), second.post(&path, &body));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "{} {}", first.body, second.body);
    customer.until(&id, &["PAID"]).await;
    customer.post(&path, &body).await.expect_problem(409, "already_paid");
    let payment = system.database("payment").await;
    let charges: i64 = sqlx::query_scalar("SELECT count(*) FROM charges WHERE order_id = $1")
        .bind(id.parse::<Uuid>().unwrap())
        .fetch_one(&payment)
        .await
        .unwrap();
    assert_eq!(charges, 1);
}

#[tokio::test]
async fn o10_about_64_of_a_hundred_random_payments_succeed() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(400, &json!({})).await;
    let orders = join_all((0..400).map(|_| customer.ordered(&sku, 1, Some("tok_random")))).await;
    let mut ended = Vec::new();
    for id in &orders {
        ended.push(customer.until(id, &["PAID", "SHIPPED", "DELIVERED", "PAYMENT_FAILED"]).await);
    }
    let count = |reason: &str| ended.iter().filter(|order| order["reason"] == reason).count();
    let paid = ended.iter().filter(|order| order["state"] != "PAYMENT_FAILED").count();
    // 400 tries at 0.64: the standard deviation is 10; five of them on either side.
    assert!((206..=306).contains(&paid), "{paid} of 400 were paid");
    assert!((40..=120).contains(&count("abandoned")), "{} were abandoned", count("abandoned"));
    assert!((24..=104).contains(&count("declined")), "{} were declined", count("declined"));
}

#[tokio::test]
async fn o14_own_orders_are_listed_newest_first_with_pages_and_states() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(50, &json!({})).await;
    let mut orders = Vec::new();
    for n in 0..7 {
        let method = if n % 2 == 0 { "tok_approve" } else { "tok_decline" };
        orders.push(customer.ordered(&sku, 1, Some(method)).await);
    }
    for order in &orders {
        customer.until(order, &["PAID", "SHIPPED", "DELIVERED", "PAYMENT_FAILED"]).await;
    }
    orders.reverse();
    let ids = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut seen = Vec::new();
    let mut path = "/v1/orders?limit=3".to_owned();
    loop {
        let page = customer.get(&path).await.expect(200);
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/orders?limit=3&after={next}");
    }
    assert_eq!(seen, orders);
    let failed = customer.get("/v1/orders?state=PAYMENT_FAILED,CANCELLED").await.expect(200);
    assert_eq!(ids(&failed), [&orders[1], &orders[3], &orders[5]].map(Clone::clone));
    let latest = customer.get("/v1/orders?limit=5").await.expect(200);
    assert_eq!(ids(&latest), orders[..5]);
    assert_eq!(system.customer().get("/v1/orders").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn an_order_is_never_missing_after_its_202_and_its_version_never_goes_back() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(100, &json!({})).await;
    join_all((0..10).map(|n| {
        let (customer, sku) = (customer.clone(), sku.clone());
        async move {
            let id = customer.at(n % 2).ordered(&sku, 1, Some("tok_approve")).await;
            let mut version = 0_i64;
            let mut node = n;
            loop {
                let order = customer.at(node % 2).see(&id).await;
                let seen = order["version"].as_i64().unwrap();
                assert!(seen >= version, "{seen} after {version}");
                version = seen;
                node += 1;
                if order["state"] == "PAID" {
                    break;
                }
            }
        }
    }))
    .await;
}
