//! Live answers: `Prefer: wait` and server-sent events.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use domain_types::{CustomerId, OrderId};
use futures::StreamExt as _;
use futures::future::join_all;
use reqwest::{Method, Response, StatusCode};
use schemas::{OrderChanged, OrderEvent, OrderState, Reason, Topic};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::support::{
    Node, SOON, World, changed, customer_token, new_customer, now, one_of, order_at, placed, problem, read,
    won,
};

/// An event: its id and the order.
type Event = (i64, Value);

/// A stream as a client reads it.
struct Stream {
    response: Response,
    text: String,
    comments: Vec<String>,
    retry: Option<u64>,
}

impl Stream {
    async fn open(node: &Node, token: &str, order: OrderId, last: Option<i64>) -> Self {
        let response = ask(node, token, order, last).await;
        if response.status() != StatusCode::OK {
            panic!("no stream: {:?}", read(response).await);
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        Self { response, text: String::new(), comments: Vec::new(), retry: None }
    }

    /// The next event; `None` at an orderly end.
    async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(SOON, self.read()).await.expect("an event or an end")
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.block(&block) {
                    return Some(event);
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    fn block(&mut self, block: &str) -> Option<Event> {
        let (mut name, mut id, mut data) = ("", None, None);
        for line in block.lines() {
            match line.split_once(':').unwrap() {
                ("", comment) => self.comments.push(comment.trim().to_owned()),
                ("event", value) => name = value.trim(),
                ("id", value) => id = Some(value.trim().parse().unwrap()),
                ("data", value) => data = Some(serde_json::from_str::<Value>(value).unwrap()),
                ("retry", value) => self.retry = Some(value.trim().parse().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        let (id, data) = (id?, data?);
        assert_eq!(name, "order");
        assert_eq!(data["version"], id);
        Some((id, data))
    }

    /// Events up to this version.
    async fn until(&mut self, version: i64) -> Event {
        let mut last = 0;
        loop {
            let event = self.next().await.expect("the stream goes on");
            assert!(event.0 > last, "{} after {last}", event.0);
            last = event.0;
            if last >= version {
                return event;
            }
        }
    }
}

async fn ask(node: &Node, token: &str, order: OrderId, last: Option<i64>) -> Response {
    let request = node.request(Method::GET, &format!("/v1/orders/{order}/events"), Some(token));
    let request = match last {
        Some(last) => request.header("last-event-id", last.to_string()),
        None => request,
    };
    request.send().await.unwrap()
}

async fn place(world: &World, customer: CustomerId) -> OrderId {
    let order = OrderId(Uuid::now_v7());
    world.event(order, OrderEvent::from(placed(customer, now()))).await;
    order
}

fn ended(version: i64) -> OrderChanged {
    let mut event = changed(version, OrderState::Rejected, now());
    (event.reason, event.is_final) = (Some(Reason::SoldOut), true);
    event
}

async fn open_streams(node: &Node) -> i64 {
    let metrics = node.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with("api_streams_open ")).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn no_stream_is_open(node: &Node) {
    eventually(SOON, "no stream is open", async || {
        let open = open_streams(node).await;
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_stream_tells_what_is_then_what_comes_on_any_node_until_the_order_is_final() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let order = place(&world, customer).await;
    let mut streams = Vec::new();
    for node in [&node, &other] {
        order_at(node, &token, order, 2).await;
        let mut stream = Stream::open(node, &token, order, None).await;
        let (id, data) = stream.next().await.unwrap();
        assert_eq!((id, &data["state"]), (2, &json!("RESERVING")));
        assert_eq!(data, order_at(node, &token, order, 2).await, "an event is what a GET shows");
        streams.push(stream);
    }
    let began = Instant::now();
    world.event(order, changed(3, OrderState::Charging, now())).await;
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap().0, 3);
    }
    assert!(began.elapsed() < Duration::from_millis(900), "nobody was woken: {:?}", began.elapsed());
    // A client that lost its connection goes on where it was; one that comes late gets what there is.
    drop(streams.remove(0));
    let mut resumed = Stream::open(&other, &token, order, Some(3)).await;
    world.event(order, changed(4, OrderState::Compensating, now())).await;
    world.event(order, ended(5)).await;
    for stream in [&mut resumed, &mut streams[0]] {
        let (id, data) = stream.until(5).await;
        assert_eq!((id, &data["final"]), (5, &json!(true)));
        assert_eq!(data["history"].as_array().unwrap().len(), 5, "what came close together is in it");
        assert_eq!(stream.next().await, None, "the end");
    }
    for last in [None, Some(2), Some(4)] {
        let mut late = Stream::open(&node, &token, order, last).await;
        assert_eq!(late.next().await.unwrap().0, 5);
        assert_eq!(late.next().await, None);
    }
    // Whoever has the end already is told not to come back.
    assert_eq!(ask(&node, &token, order, Some(5)).await.status(), StatusCode::NO_CONTENT);
    no_stream_is_open(&node).await;
    no_stream_is_open(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_what_is_no_own_order_or_no_cursor_is_answered_before_a_stream_begins() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let order = place(&world, customer).await;
    order_at(&node, &token, order, 2).await;
    let stranger = customer_token(new_customer());
    problem(ask(&node, &stranger, order, None).await, 404, "not_found").await;
    problem(ask(&node, &token, OrderId(Uuid::now_v7()), None).await, 404, "not_found").await;
    let path = format!("/v1/orders/{order}/events");
    problem(node.get("/v1/orders/x/events", Some(&token)).await, 404, "not_found").await;
    problem(node.get(&path, None).await, 401, "unauthorized").await;
    for bad in ["x", "", "-1", "1.5", "99999999999999999999"] {
        let request = node.request(Method::GET, &path, Some(&token)).header("last-event-id", bad);
        problem(request.send().await.unwrap(), 400, "invalid_last_event_id").await;
    }
    no_stream_is_open(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_an_order_that_the_saga_has_not_seen_can_be_followed() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let order = node.place(&token, &one_of(&sku)).await;
    let mut stream = Stream::open(&node, &token, order, None).await;
    let (id, data) = stream.next().await.unwrap();
    assert_eq!((id, &data["state"]), (1, &json!("ACCEPTED")));
    world.event(order, OrderEvent::from(placed(customer, now()))).await;
    world.event(order, ended(3)).await;
    stream.until(3).await;
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_version_that_the_tail_missed_is_found_by_looking() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let order = place(&world, customer).await;
    order_at(&node, &token, order, 2).await;
    let mut stream = Stream::open(&node, &token, order, None).await;
    assert_eq!(stream.next().await.unwrap().0, 2);
    // Another node's projection, as it were: nothing comes through the log.
    sqlx::query(
        "UPDATE orders SET version = 3, document = jsonb_set(document::jsonb, '{version}', '3')::text
         WHERE order_id = $1",
    )
    .bind(order.uuid())
    .execute(&world.pool)
    .await
    .unwrap();
    assert_eq!(stream.next().await.unwrap().0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_thousand_streams_share_the_reads_and_all_see_the_end() {
    let world = World::shared().await;
    let node = world.node().await;
    // One customer alone would be too fast for the edge.
    let customers: Vec<CustomerId> = (0..25).map(|_| new_customer()).collect();
    let tokens: Vec<String> = customers.iter().map(|customer| customer_token(*customer)).collect();
    let orders = join_all((0..250).map(|number| place(&world, customers[number % 25]))).await;
    world.caught_up(Topic::OrderEvents).await;
    let opening = futures::stream::iter(0..1_000).map(|number| {
        let order = number % 250;
        Stream::open(&node, &tokens[order % 25], orders[order], None)
    });
    let streams: Vec<Stream> = opening.buffer_unordered(200).collect().await;
    assert_eq!(open_streams(&node).await, 1_000);
    let statements = statements(&world).await;
    let following = join_all(streams.into_iter().map(|mut stream| async move {
        let last = stream.until(4).await;
        (last, stream.next().await)
    }));
    let events = join_all(orders.iter().map(|order| async {
        world.event(*order, changed(3, OrderState::Charging, now())).await;
        world.event(*order, ended(4)).await;
    }));
    let (seen, _) = tokio::join!(following, events);
    assert_eq!(seen.len(), 1_000);
    for (last, end) in seen {
        assert_eq!((last.0, end), (4, None));
    }
    no_stream_is_open(&node).await;
    let statements = self::statements(&world).await - statements;
    assert!(statements < 1_000, "{statements} transactions for 1,000 streams of 250 orders");
}

/// Transactions of this test's database; PostgreSQL counts them a moment later.
async fn statements(world: &World) -> i64 {
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_stream_beyond_the_limit_is_told_so_and_a_place_comes_free() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.live.max_streams = 2;
    let node = Node::start(settings).await;
    let customer = new_customer();
    let token = customer_token(customer);
    let order = place(&world, customer).await;
    order_at(&node, &token, order, 2).await;
    let one = Stream::open(&node, &token, order, None).await;
    let _two = Stream::open(&node, &token, order, None).await;
    let refused = ask(&node, &token, order, None).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "too_many_streams").await;
    drop(one);
    eventually(SOON, "the place of a client that left is free", async || {
        let status = ask(&node, &token, order, None).await.status();
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await;
}

/// A connection that asks for a stream and takes little.
async fn small_reader(address: SocketAddr, token: &str, order: OrderId) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!(
        "GET /v1/orders/{order}/events HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_reader_that_takes_nothing_is_dropped_with_a_broken_end_and_others_go_on() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.edge.write_within_ms = 1_000;
    let node = Node::start(settings).await;
    let customer = new_customer();
    let token = customer_token(customer);
    let order = place(&world, customer).await;
    order_at(&node, &token, order, 2).await;
    let mut slow = small_reader(node.addresses.public, &token, order).await;
    let mut quick = Stream::open(&node, &token, order, None).await;
    eventually(SOON, "both are open", async || {
        let open = open_streams(&node).await;
        if open == 2 { Ok(()) } else { Err(open) }
    })
    .await;
    // The history makes each version larger than the one before.
    let states = [OrderState::Charging, OrderState::AwaitingPayment];
    let mut version = 2;
    while open_streams(&node).await == 2 {
        version += 1;
        assert!(version < 2_000, "the slow reader is still there, {version} versions later");
        world.event(order, changed(version, states[usize::from(version % 2 == 0)], now())).await;
        assert_eq!(quick.until(version).await.0, version);
    }
    let mut taken = Vec::new();
    let _reset = slow.read_to_end(&mut taken).await;
    assert!(!taken.ends_with(b"\r\n0\r\n\r\n"), "an end that looks like the order's");
    let text = String::from_utf8_lossy(&taken);
    let last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let last: i64 = last.trim().parse().unwrap();
    assert!(last < version, "nothing was held back");
    let mut resumed = Stream::open(&node, &token, order, Some(last)).await;
    assert_eq!(resumed.until(version).await.0, version, "what was missed is had by coming back");
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_shutdown_ends_streams_and_waits_at_once_and_in_order() {
    let world = World::shared().await;
    let node = world.node().await;
    let customer = new_customer();
    let token = customer_token(customer);
    let sku = world.product(&node, won(1_000)).await;
    let order = place(&world, customer).await;
    order_at(&node, &token, order, 2).await;
    let mut streams = join_all((0..50).map(|_| Stream::open(&node, &token, order, Some(2)))).await;
    let waiting = node.request(Method::POST, "/v1/orders", Some(&token)).header("prefer", "wait=30");
    let waiting = tokio::spawn(waiting.json(&one_of(&sku)).send());
    eventually(SOON, "somebody waits", async || {
        let waits = node.metrics().await.lines().any(|line| line == "api_waits_open 1");
        if waits { Ok(()) } else { Err("nobody") }
    })
    .await;
    let began = Instant::now();
    node.shut_down().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for stream in &mut streams {
        assert_eq!(stream.next().await, None, "an orderly end");
        assert!(stream.comments.iter().any(|comment| comment.contains("Last-Event-ID")));
        assert!(stream.retry.is_some_and(|millis| (500..2_500).contains(&millis)));
    }
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
}

async fn order_waiting(node: &Node, token: &str, key: &str, body: &Value, prefer: &str) -> Response {
    let request = node.request(Method::POST, "/v1/orders", Some(token)).header("prefer", prefer);
    request.header("idempotency-key", key).json(body).send().await.unwrap()
}

/// The id that a customer's key gives an order.
fn id_for(customer: CustomerId, key: &str) -> OrderId {
    OrderId(Uuid::new_v5(&customer.uuid(), key.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_wait_is_201_with_the_outcome_and_202_when_time_is_up() {
    let world = World::shared().await;
    let node = world.node().await;
    let sku = world.product(&node, won(1_000)).await;
    let body = one_of(&sku);
    let outcomes = [
        (OrderState::Paid, false),
        (OrderState::AwaitingPayment, false),
        (OrderState::Compensating, false),
        (OrderState::Rejected, true),
    ];
    for (state, is_final) in outcomes {
        let customer = new_customer();
        let (token, order) = (customer_token(customer), id_for(customer, "k"));
        let began = Instant::now();
        let saga = async {
            eventually(SOON, "the order is taken", async || {
                let rows = world.count("SELECT count(*) FROM intake WHERE order_id = $1", order.uuid()).await;
                if rows == 1 { Ok(()) } else { Err(rows) }
            })
            .await;
            world.event(order, OrderEvent::from(placed(customer, now()))).await;
            world.event(order, changed(3, OrderState::Charging, now())).await;
            let mut last = changed(4, state, now());
            last.is_final = is_final;
            world.event(order, last).await;
        };
        let waiting = order_waiting(&node, &token, "k", &body, "respond-async, wait=20");
        let (answer, ()) = tokio::join!(waiting, saga);
        assert_eq!(answer.headers()["preference-applied"], "wait=20");
        assert_eq!(answer.headers()["location"], format!("/v1/orders/{order}"));
        let (status, shown) = read(answer).await;
        assert_eq!((status, shown["version"].as_i64()), (StatusCode::CREATED, Some(4)), "{shown}");
        assert_eq!(shown["state"], state.as_str());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let repeat = order_waiting(&node, &token, "k", &body, "wait=20").await;
        assert_eq!(repeat.status(), StatusCode::CREATED, "a repeat finds the same outcome");
    }
    let (began, token) = (Instant::now(), customer_token(new_customer()));
    let late = order_waiting(&node, &token, "late", &body, "wait=1").await;
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&began.elapsed()));
    assert_eq!(
        (late.status(), &late.headers()["preference-applied"]),
        (StatusCode::ACCEPTED, &"wait=1".parse().unwrap())
    );
    assert_eq!(read(late).await.1["state"], "ACCEPTED");
    for prefer in ["wait=31", "wait=0", "wait=soon", "return=minimal"] {
        let (began, token) = (Instant::now(), customer_token(new_customer()));
        let answer = order_waiting(&node, &token, prefer, &body, prefer).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert!(!answer.headers().contains_key("preference-applied"), "{prefer}");
        assert!(began.elapsed() < Duration::from_secs(3), "{prefer}");
    }
    let refused = order_waiting(&node, &token, "bad", &json!({"lines": []}), "wait=20").await;
    assert!(!refused.headers().contains_key("preference-applied"));
    problem(refused, 422, "invalid_request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_wait_may_be_longer_than_any_other_request_and_is_no_latency() {
    let world = World::shared().await;
    let node = world.node().await;
    let token = customer_token(new_customer());
    let sku = world.product(&node, won(1_000)).await;
    let (began, body) = (Instant::now(), one_of(&sku));
    let answer = order_waiting(&node, &token, "k", &body, "wait=17").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(began.elapsed() >= Duration::from_secs(17));
    let metrics = node.metrics().await;
    let sum = metrics
        .lines()
        .find(|line| line.starts_with("api_http_request_seconds_sum") && line.contains("\"/v1/orders\""))
        .unwrap();
    let seconds: f64 = sum.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds < 5.0, "{sum}");
}
