//! The door: who is let in, in which order, and what comes back.

use std::collections::HashMap;
use std::time::Duration;

use domain_types::{LineNumber, OrderId, Sku, Timestamp};
use futures::future::join_all;
use local_stack::{Part, Stack};
use reqwest::StatusCode;
use schemas::{
    LineStock, OrderChanged, OrderPlaced, OrderSagaMessage, OrderState, PlaceOrder, Reason, Sale, StockLevel,
    Ticket, Topic,
};
use serde_json::json;
use testkit::eventually;

use crate::support::{
    Log, Node, SOON, World, changed, customer_token, id_of, level, new_customer, now, one_of, order_at,
    placed, problem, read, won,
};

/// A level with that many units, none of them taken.
pub(crate) fn stock(units: i64, limit: Option<u32>, sale: Option<Sale>) -> StockLevel {
    let sku = Sku::new(testkit::unique("DOOR", '-').to_uppercase()).unwrap();
    let mut level = level(&sku, 1, won(1_000));
    level.initial = units;
    level.available = units;
    level.granted = units;
    level.product.limit_per_customer = limit;
    level.product.sale = sale;
    level
}

/// The next level: that many units given out, and that many given back since the last one.
pub(crate) fn next_level(level: &StockLevel, taken: i64, given_back: i64) -> StockLevel {
    StockLevel {
        version: level.version + taken + given_back,
        available: level.available - taken + given_back,
        held: level.held + taken - given_back,
        granted: level.granted + given_back,
        updated_at: now(),
        ..level.clone()
    }
}

async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// The count of a sku; empty if there is none.
async fn count(url: &str, sku: &Sku) -> HashMap<String, String> {
    let key = format!("door:{{{sku}}}");
    redis::cmd("HGETALL").arg(key).query_async(&mut connection(url).await).await.unwrap()
}

fn number(count: &HashMap<String, String>, field: &str) -> i64 {
    count.get(field).map_or(-1, |text| text.parse().unwrap())
}

/// Waits until the door promises that many units more than came back.
async fn promised(url: &str, sku: &Sku, units: i64) -> HashMap<String, String> {
    eventually(SOON, "the door has counted", async || {
        let count = count(url, sku).await;
        if number(&count, "issued") - number(&count, "voided") == units {
            Ok(count)
        } else {
            Err(format!("{count:?}"))
        }
    })
    .await
}

/// Publishes a product; returns once the catalogue and the door know it.
async fn on_offer(world: &World, node: &Node, level: &StockLevel) -> Sku {
    world.level(level.clone()).await;
    let sku = level.sku.clone();
    eventually(SOON, "the product can be ordered", async || {
        let status = node.get(&format!("/v1/products/{sku}"), None).await.status();
        let count = count(&world.redis_url, &sku).await;
        if status == StatusCode::OK && !count.is_empty() {
            Ok(())
        } else {
            Err(format!("{status} {count:?}"))
        }
    })
    .await;
    sku
}

fn command(commands: &[OrderSagaMessage]) -> PlaceOrder {
    let OrderSagaMessage::PlaceOrder(command) = &commands[0] else { panic!("{commands:?}") };
    command.clone()
}

async fn ticket(log: &Log, order: OrderId) -> Option<Ticket> {
    command(&log.commands(order, 1).await).lines[0].ticket
}

/// The saga has begun.
async fn begun(world: &World, log: &Log, order: OrderId) {
    let command = command(&log.commands(order, 1).await);
    let placed = OrderPlaced { lines: command.lines, ..placed(command.customer_id, now()) };
    world.event(order, placed).await;
}

/// The order's first line is held with that version of its stock, or given back.
async fn held(world: &World, order: OrderId, version: i64, held: bool, stock_version: i64) {
    let stock = vec![LineStock { line: LineNumber(0), held, stock_version }];
    let state = if held { OrderState::Charging } else { OrderState::Compensating };
    world.event(order, OrderChanged { stock, ..changed(version, state, now()) }).await;
}

async fn ended(world: &World, order: OrderId, version: i64, state: OrderState, reason: Option<Reason>) {
    let event = OrderChanged { reason, is_final: true, ..changed(version, state, now()) };
    world.event(order, event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_sold_out_is_told_at_the_door_and_leaves_nothing_behind() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let sku = on_offer(&world, &node, &stock(2, None, None)).await;
    let first = node.place(&customer_token(new_customer()), &one_of(&sku)).await;
    let second = node.place(&customer_token(new_customer()), &one_of(&sku)).await;
    let late = new_customer();
    problem(node.post("/v1/orders", &customer_token(late), &one_of(&sku)).await, 409, "sold_out").await;
    let keyed = node.order_with_key(&customer_token(late), "late", &one_of(&sku)).await;
    problem(keyed, 409, "sold_out").await;
    assert_eq!(world.intake_rows(late).await, 0);
    let tickets = [ticket(&log, first).await.unwrap(), ticket(&log, second).await.unwrap()];
    assert_eq!([tickets[0].number, tickets[1].number], [1, 2]);
    assert_eq!(tickets[0].generation, tickets[1].generation);
    let marker = node
        .place(
            &customer_token(new_customer()),
            &one_of(&on_offer(&world, &node, &stock(1, None, None)).await),
        )
        .await;
    log.commands(marker, 1).await;
    let of_late = format!("{late}");
    let records = log.records.lock().unwrap();
    assert!(!records.iter().any(|record| String::from_utf8_lossy(&record.value).contains(&of_late)));
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_of_200_buyers_at_once_the_first_20_get_tickets_1_to_20() {
    let world = World::shared().await;
    let (one, two) = world.two_nodes().await;
    let log = world.follow(Topic::OrderSaga);
    let sku = on_offer(&world, &one, &stock(20, Some(1), None)).await;
    let body = one_of(&sku);
    let buyers = (0..200).map(async |number| {
        let node = if number % 2 == 0 { &one } else { &two };
        let token = customer_token(new_customer());
        loop {
            // A database that is too busy for a second is a 503; buyers insist.
            let answer = read(node.order_with_key(&token, "mine", &body).await).await;
            if answer.0 != StatusCode::SERVICE_UNAVAILABLE {
                break answer;
            }
        }
    });
    let answers = join_all(buyers).await;
    let mut numbers = Vec::new();
    for (status, answer) in &answers {
        if *status == StatusCode::ACCEPTED {
            numbers.push(ticket(&log, id_of(answer)).await.expect("a ticket").number);
        } else {
            assert_eq!((status.as_u16(), answer["code"].as_str()), (409, Some("sold_out")), "{answer}");
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_an_accepted_order_finds_it_and_never_sold_out() {
    let world = World::shared().await;
    let (one, two) = world.two_nodes().await;
    let sku = on_offer(&world, &one, &stock(1, Some(1), None)).await;
    let token = customer_token(new_customer());
    let body = one_of(&sku);
    // All at once, on both nodes: one order, one unit.
    let tries = (0..10).map(async |number| {
        let node = if number % 2 == 0 { &one } else { &two };
        read(node.order_with_key(&token, "mine", &body).await).await
    });
    let answers = join_all(tries).await;
    let id = id_of(&answers[0].1);
    for (status, answer) in &answers {
        assert_eq!((*status, id_of(answer)), (StatusCode::ACCEPTED, id), "{answer}");
    }
    promised(&world.redis_url, &sku, 1).await;
    problem(one.post("/v1/orders", &customer_token(new_customer()), &body).await, 409, "sold_out").await;
    // A new count, after Redis lost its data, knows no ticket of this order.
    let mut connection = connection(&world.redis_url).await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("door:*{sku}*")).query_async(&mut connection).await.unwrap();
    let _deleted: i64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.unwrap();
    for node in [&one, &two] {
        let (status, answer) = read(node.order_with_key(&token, "mine", &body).await).await;
        assert_eq!((status, id_of(&answer)), (StatusCode::ACCEPTED, id), "{answer}");
    }
    promised(&world.redis_url, &sku, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_taken_gives_all_its_tickets_back() {
    let world = World::shared().await;
    let node = world.node().await;
    let (mut plenty, mut none) = (stock(5, Some(5), None), stock(1, None, None));
    let mut skus = [plenty.sku.clone(), none.sku.clone()];
    skus.sort_unstable();
    [plenty.sku, none.sku] = skus;
    let (plenty, none) = (on_offer(&world, &node, &plenty).await, on_offer(&world, &node, &none).await);
    node.place(&customer_token(new_customer()), &one_of(&none)).await;
    let customer = new_customer();
    let token = customer_token(customer);
    let both = json!({"lines": [{"sku": plenty, "quantity": 5}, {"sku": none, "quantity": 1}]});
    problem(node.post("/v1/orders", &token, &both).await, 409, "sold_out").await;
    promised(&world.redis_url, &plenty, 0).await;
    let unknown = json!({"lines": [{"sku": plenty, "quantity": 5}, {"sku": "ZZ-NOT-THERE", "quantity": 1}]});
    problem(node.post("/v1/orders", &token, &unknown).await, 422, "unknown_sku").await;
    problem(node.order_with_key(&token, "unknown", &unknown).await, 422, "unknown_sku").await;
    promised(&world.redis_url, &plenty, 0).await;
    assert_eq!(world.intake_rows(customer).await, 0);
    // Neither units nor the customer's limit were touched.
    let all = json!({"lines": [{"sku": plenty, "quantity": 5}]});
    node.place(&token, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_nobody_gets_more_than_one_customer_may_until_units_are_given_back() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let offer = stock(10, Some(2), None);
    let sku = on_offer(&world, &node, &offer).await;
    let token = customer_token(new_customer());
    let three = json!({"lines": [{"sku": sku, "quantity": 3}]});
    problem(node.post("/v1/orders", &token, &three).await, 409, "limit_exceeded").await;
    let first = node.place(&token, &one_of(&sku)).await;
    let second = node.place(&token, &one_of(&sku)).await;
    problem(node.post("/v1/orders", &token, &one_of(&sku)).await, 409, "limit_exceeded").await;
    node.place(&customer_token(new_customer()), &one_of(&sku)).await;
    // One is refused by the stock worker, one is cancelled: the customer may buy again.
    begun(&world, &log, first).await;
    ended(&world, first, 3, OrderState::Rejected, Some(Reason::SoldOut)).await;
    begun(&world, &log, second).await;
    held(&world, second, 3, true, 2).await;
    held(&world, second, 4, false, 3).await;
    ended(&world, second, 5, OrderState::Cancelled, None).await;
    world.level(next_level(&offer, 1, 1)).await;
    for _ in 0..2 {
        eventually(SOON, "the customer may buy again", async || {
            let (status, answer) = read(node.post("/v1/orders", &token, &one_of(&sku)).await).await;
            if status == StatusCode::ACCEPTED { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    problem(node.post("/v1/orders", &token, &one_of(&sku)).await, 409, "limit_exceeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_outside_its_sale_window_nothing_is_sold_and_within_a_second_of_it_everywhere() {
    let world = World::shared().await;
    let (one, two) = world.two_nodes().await;
    let opens_at = now().plus(Duration::from_secs(6));
    let closes_at = opens_at.plus(Duration::from_secs(4));
    let sale = Sale { opens_at: Some(opens_at), closes_at: Some(closes_at), daily: None };
    let sku = on_offer(&world, &one, &stock(1_000, None, Some(sale))).await;
    let early = new_customer();
    let token = customer_token(early);
    for node in [&one, &two] {
        problem(node.order_with_key(&token, "early", &one_of(&sku)).await, 403, "sale_closed").await;
    }
    for node in [&one, &two] {
        let body = one_of(&sku);
        let token = customer_token(new_customer());
        let ask = async || node.post("/v1/orders", &token, &body).await.status();
        let opened: Timestamp = eventually(SOON, "the sale opens", async || {
            let status = ask().await;
            if status == StatusCode::ACCEPTED { Ok(now()) } else { Err(status) }
        })
        .await;
        assert!(opened >= opens_at, "{opened} is before {opens_at}");
    }
    assert!(now() < opens_at.plus(Duration::from_secs(1)), "both within a second");
    for node in [&one, &two] {
        let token = customer_token(new_customer());
        let closed: Timestamp = eventually(SOON, "the sale closes", async || {
            let status = node.post("/v1/orders", &token, &one_of(&sku)).await.status();
            if status == StatusCode::FORBIDDEN { Ok(now()) } else { Err(status) }
        })
        .await;
        assert!((closes_at..closes_at.plus(Duration::from_secs(1))).contains(&closed), "{closed}");
    }
    assert_eq!(world.intake_rows(early).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_declined_payment_makes_room_for_the_next_buyer() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let offer = stock(1, None, None);
    let sku = on_offer(&world, &node, &offer).await;
    let first = node.place(&customer_token(new_customer()), &one_of(&sku)).await;
    begun(&world, &log, first).await;
    held(&world, first, 3, true, 2).await;
    let taken = next_level(&offer, 1, 0);
    world.level(taken.clone()).await;
    let next = customer_token(new_customer());
    world.caught_up(Topic::OrderEvents).await;
    problem(node.post("/v1/orders", &next, &one_of(&sku)).await, 409, "sold_out").await;
    held(&world, first, 4, false, 3).await;
    ended(&world, first, 5, OrderState::PaymentFailed, Some(Reason::Declined)).await;
    world.level(next_level(&taken, 0, 1)).await;
    let second = eventually(SOON, "the unit can be had again", async || {
        let (status, answer) = read(node.post("/v1/orders", &next, &one_of(&sku)).await).await;
        if status == StatusCode::ACCEPTED { Ok(id_of(&answer)) } else { Err(answer) }
    })
    .await;
    assert_eq!(ticket(&log, second).await.unwrap().number, 2);
    // Once: the end of the first order gave nothing more.
    order_at(&node, &next, second, 1).await;
    world.caught_up(Topic::OrderEvents).await;
    problem(node.post("/v1/orders", &next, &one_of(&sku)).await, 409, "sold_out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_order_was_never_kept_is_given_to_the_next() {
    let world = World::shared().await;
    let node = world.node().await;
    let sku = on_offer(&world, &node, &stock(1, Some(1), None)).await;
    let customer = new_customer();
    let order = node.place(&customer_token(customer), &one_of(&sku)).await;
    // As if the process had died between the ticket and the row, long ago.
    sqlx::query("DELETE FROM intake WHERE order_id = $1")
        .bind(order.uuid())
        .execute(&world.pool)
        .await
        .unwrap();
    let member = format!("{order}:1:{customer}");
    let mut connection = connection(&world.redis_url).await;
    let key = format!("door:{{{sku}}}:open");
    let moved: i64 = redis::cmd("ZADD")
        .arg(key)
        .arg("XX")
        .arg("CH")
        .arg(1)
        .arg(member)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(moved, 1, "the open ticket");
    promised(&world.redis_url, &sku, 0).await;
    node.place(&customer_token(customer), &one_of(&sku)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_emptied_stops_no_order_and_the_count_agrees_with_the_stock_again() {
    let stack = testkit::private_stack("api-redis").await;
    let world = World::on(&stack).await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let offer = stock(5, Some(2), None);
    let sku = on_offer(&world, &node, &offer).await;
    let buyer = new_customer();
    let first = node.place(&customer_token(buyer), &one_of(&sku)).await;
    begun(&world, &log, first).await;
    held(&world, first, 3, true, 2).await;
    let mut newest = next_level(&offer, 1, 0);
    world.level(newest.clone()).await;
    let old = ticket(&log, first).await.unwrap().generation;

    // Away: admitted without a ticket, in time.
    stack.kill_part(Part::Redis).await.unwrap();
    let began = std::time::Instant::now();
    let second = node.place(&customer_token(new_customer()), &one_of(&sku)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ticket(&log, second).await, None);
    begun(&world, &log, second).await;
    node.wait_until_ready().await;

    // Back, and empty. A new count begins from the newest level: 5 units, 1 of them taken.
    emptied(&stack).await;
    let third = eventually(SOON, "there are tickets again", async || {
        let order = node.place(&customer_token(new_customer()), &one_of(&sku)).await;
        ticket(&log, order).await.map(|ticket| (order, ticket)).ok_or(order)
    })
    .await;
    assert_ne!(third.1.generation, old);
    promised(&world.redis_url, &sku, 2).await;
    // Held without a ticket and behind that level: counted by its event, once.
    held(&world, second, 3, true, 3).await;
    promised(&world.redis_url, &sku, 3).await;
    held(&world, second, 3, true, 3).await;
    newest = next_level(&newest, 1, 0);
    world.level(newest).await;
    world.caught_up(Topic::OrderEvents).await;
    // The projection tells what the buyer has.
    let two = json!({"lines": [{"sku": sku, "quantity": 2}]});
    problem(node.post("/v1/orders", &customer_token(buyer), &two).await, 409, "limit_exceeded").await;
    // All that is left is promised once; what was let in without a ticket is the stock worker's to refuse.
    loop {
        let response = node.post("/v1/orders", &customer_token(new_customer()), &one_of(&sku)).await;
        if response.status() != StatusCode::ACCEPTED {
            problem(response, 409, "sold_out").await;
            break;
        }
    }
    let count = promised(&world.redis_url, &sku, 5).await;
    assert_eq!(number(&count, "granted"), 5);
}

/// A Redis that was killed comes back with nothing in it.
async fn emptied(stack: &Stack) {
    stack.start_part(Part::Redis).await.unwrap();
    let _ok: String =
        redis::cmd("FLUSHALL").query_async(&mut connection(&stack.redis_url()).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_differs_from_the_stock_begins_anew() {
    let world = World::shared().await;
    let node = world.node().await;
    let offer = stock(5, None, None);
    let sku = on_offer(&world, &node, &offer).await;
    let mut connection = connection(&world.redis_url).await;
    // A promise that nobody remembers.
    let _issued: i64 = redis::cmd("HINCRBY")
        .arg(format!("door:{{{sku}}}"))
        .arg("issued")
        .arg(4)
        .query_async(&mut connection)
        .await
        .unwrap();
    let two = json!({"lines": [{"sku": sku, "quantity": 2}]});
    problem(node.post("/v1/orders", &customer_token(new_customer()), &two).await, 409, "sold_out").await;
    eventually(SOON, "the units can be had again", async || {
        let (status, answer) =
            read(node.post("/v1/orders", &customer_token(new_customer()), &two).await).await;
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(answer) }
    })
    .await;
}
