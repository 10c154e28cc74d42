//! The edge: what is let in, how fast, how many at once; and that nothing hangs.

use std::time::{Duration, Instant};

use api::Settings;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Node, SOON, World, customer_token, new_customer, one_of, problem, read, won};

/// A node with other settings of the edge.
async fn node_with(world: &World, change: impl FnOnce(&mut Settings)) -> Node {
    let mut settings = world.settings();
    change(&mut settings);
    Node::start(settings).await
}

fn rate(per_second: u32, burst: u32) -> api::Rate {
    serde_json::from_value(json!({"per_second": per_second, "burst": burst})).unwrap()
}

/// A connection of its own.
async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.addresses.public).await.unwrap()
}

/// A request whose body does not come yet; the node waits for it.
async fn half_an_order(node: &Node, token: &str, body: &str) -> TcpStream {
    let mut stream = connect(node).await;
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Said by the handler that reads the body.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// What comes until the other end hangs up.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    // A reset is an end as well.
    drop(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn retry_after_s(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

async fn metric(node: &Node, name: &str) -> f64 {
    let metrics = node.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_at_once_and_stays_alive_and_serves_again() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| {
        settings.edge.max_in_flight = 3;
        settings.edge.body_within_ms = 60_000;
    })
    .await;
    let token = customer_token(new_customer());
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(half_an_order(&node, &token, "{}").await);
    }
    for _ in 0..20 {
        let began = Instant::now();
        let response = node.post("/v1/orders", &token, &json!({})).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(retry_after_s(&response), 1);
        problem(response, 503, "unavailable").await;
        for path in ["/healthz", "/readyz"] {
            assert_eq!(node.get(path, None).await.status(), StatusCode::OK, "{path}");
        }
    }
    assert!(metric(&node, "api_edge_refused_total{limit=\"in_flight\"}").await >= 20.0);
    for stream in &mut slow {
        stream.write_all(b"{}").await.unwrap();
    }
    eventually(SOON, "the node serves again", async || match node.get("/v1/products", None).await.status() {
        StatusCode::OK => Ok(()),
        status => Err(status),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_instead_of_waiting() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| settings.edge.max_connections = 4).await;
    let mut held = Vec::new();
    let told = eventually(SOON, "a connection is one too many", async || {
        let mut stream = connect(&node).await;
        let mut buffer = [0; 1_024];
        match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
            Ok(Ok(bytes)) if bytes > 0 => Ok(String::from_utf8_lossy(&buffer[..bytes]).into_owned()),
            _ => {
                held.push(stream);
                Err("it is held")
            }
        }
    })
    .await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("retry-after: 1"), "{told}");
    assert!(held.len() <= 4, "{}", held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_slow_bodies_end() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| {
        settings.edge.header_within_ms = 300;
        settings.edge.body_within_ms = 300;
    })
    .await;
    let mut head = connect(&node).await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost: api\r\nx-slow: ").await.unwrap();
    let answer = rest(&mut head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let token = customer_token(new_customer());
    let mut body = half_an_order(&node, &token, "{}").await;
    body.write_all(b"{").await.unwrap();
    let answer = rest(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_slowed_down_and_a_forged_header_does_not_help() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| {
        settings.edge.limit_loopback = true;
        settings.edge.address = rate(1, 40);
    })
    .await;
    let mut forged = 0_u8;
    let refused = eventually(SOON, "too much is refused", async || {
        forged = forged.wrapping_add(1);
        let request = node
            .request(Method::GET, "/v1/products", None)
            .header("x-forwarded-for", format!("203.0.113.{forged}"))
            .header("forwarded", format!("for=203.0.113.{forged}"))
            .header("x-real-ip", format!("203.0.113.{forged}"));
        let response = request.send().await.unwrap();
        if response.status() == StatusCode::TOO_MANY_REQUESTS { Ok(response) } else { Err(response.status()) }
    })
    .await;
    assert!((1..=2).contains(&retry_after_s(&refused)));
    problem(refused, 429, "too_many_requests").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(node.get(path, None).await.status(), StatusCode::OK, "{path}");
    }
    assert!(metric(&node, "api_edge_refused_total{limit=\"address_rate\"}").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate_and_can_not_choose_another() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| {
        settings.edge.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        settings.edge.address = rate(1, 5);
    })
    .await;
    let from = async |forwarded: String| {
        let request = node.request(Method::GET, "/v1/products", None);
        request.header("x-forwarded-for", forwarded).send().await.unwrap().status()
    };
    let mut statuses = Vec::new();
    for forged in 0..12 {
        // The client writes the left part; the proxy appends where the request really came from.
        statuses.push(from(format!("198.51.100.{forged}, 203.0.113.7")).await);
    }
    assert_eq!(statuses[..5], [StatusCode::OK; 5]);
    assert!(statuses[6..].contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    assert_eq!(from("203.0.113.8".into()).await, StatusCode::OK, "another client");
    assert_eq!(from("203.0.113.7, 203.0.113.9".into()).await, StatusCode::OK, "another client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_slowed_down_and_nobody_else() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| settings.edge.customer = rate(1, 10)).await;
    let (greedy, other) = (customer_token(new_customer()), customer_token(new_customer()));
    let refused = eventually(SOON, "too much is refused", async || {
        let response = node.get("/v1/orders", Some(&greedy)).await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS { Ok(response) } else { Err(response.status()) }
    })
    .await;
    assert!((1..=2).contains(&retry_after_s(&refused)));
    problem(refused, 429, "too_many_requests").await;
    assert_eq!(node.get("/v1/orders", Some(&other)).await.status(), StatusCode::OK);
    assert_eq!(node.get("/v1/products", Some(&greedy)).await.status(), StatusCode::OK, "public is public");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_tell_browsers_to_be_careful_and_other_sites_are_let_in_by_name_only() {
    let world = World::shared().await;
    let node = node_with(&world, |settings| {
        settings.edge.allowed_origins = vec![api::Origin::new("https://shop.example").unwrap()];
        settings.edge.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    for path in ["/v1/products", "/v1/orders", "/healthz", "/nothing"] {
        let response = node.get(path, None).await;
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("strict-transport-security"), None, "{path}: not over TLS");
    }
    let token = customer_token(new_customer());
    assert_eq!(node.get("/v1/orders", Some(&token)).await.headers()["cache-control"], "no-store");
    let tls = node.request(Method::GET, "/v1/products", None).header("x-forwarded-proto", "https");
    assert!(tls.send().await.unwrap().headers().contains_key("strict-transport-security"));

    let preflight = async |origin: &str| {
        let request = node.request(Method::OPTIONS, "/v1/orders", None).header("origin", origin);
        let request = request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,idempotency-key,prefer");
        request.send().await.unwrap().headers().get("access-control-allow-origin").cloned()
    };
    assert_eq!(preflight("https://shop.example").await.unwrap(), "https://shop.example");
    assert_eq!(preflight("https://evil.example").await, None);
    let refused = node.request(Method::GET, "/v1/orders", None).header("origin", "https://shop.example");
    let refused = refused.send().await.unwrap();
    assert_eq!(
        refused.headers()["access-control-allow-origin"],
        "https://shop.example",
        "errors are readable"
    );
    problem(refused, 401, "unauthorized").await;
    let closed = world.node().await;
    let asked = closed.request(Method::GET, "/v1/products", None).header("origin", "https://shop.example");
    assert!(!asked.send().await.unwrap().headers().contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_at_shutdown_and_an_idle_connection_ends() {
    let world = World::shared().await;
    let node = world.node().await;
    let sku = world.product(&node, won(1_000)).await;
    let customer = new_customer();
    let body = one_of(&sku).to_string();
    let (first, last) = body.split_at(body.len() / 2);
    let mut slow = half_an_order(&node, &customer_token(customer), &body).await;
    slow.write_all(first.as_bytes()).await.unwrap();
    let mut idle = connect(&node).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    idle.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let address = node.addresses.public;
    let ending = tokio::spawn(node.shut_down());
    rest(&mut idle).await;
    eventually(SOON, "nobody new is let in", async || match TcpStream::connect(address).await {
        Ok(_) => Err("connected"),
        Err(_refused) => Ok(()),
    })
    .await;
    assert!(!ending.is_finished(), "it waits for the slow one");
    slow.write_all(last.as_bytes()).await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    ending.await.unwrap();
    assert_eq!(world.intake_rows(customer).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_the_admin_port_only_and_identity_headers_are_ignored() {
    let world = World::shared().await;
    let node = world.node().await;
    problem(node.get("/metrics", None).await, 404, "not_found").await;
    assert!(node.metrics().await.contains("api_http_requests_total"));
    let (me, other) = (new_customer(), new_customer());
    let sku = world.product(&node, won(1_000)).await;
    let id = node.place(&customer_token(me), &one_of(&sku)).await;
    for header in ["x-user-id", "x-customer-id", "x-forwarded-user", "x-roles", "x-admin"] {
        let path = format!("/v1/orders/{id}");
        let request = node.request(Method::GET, &path, Some(&customer_token(other)));
        problem(request.header(header, me.to_string()).send().await.unwrap(), 404, "not_found").await;
        let request = node.request(Method::GET, &path, None).header(header, me.to_string());
        problem(request.send().await.unwrap(), 401, "unauthorized").await;
    }
    let (status, seen): (_, Value) =
        read(node.get(&format!("/v1/orders/{id}"), Some(&customer_token(me))).await).await;
    assert_eq!((status, seen["customer_id"].as_str()), (StatusCode::OK, Some(me.to_string().as_str())));
}
