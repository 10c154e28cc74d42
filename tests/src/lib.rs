#![doc = include_str!("../README.md")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use local_stack::{GuardedChild, GuardedCommand, Signal};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long a change of state may take before a test fails.
pub const SOON: Duration = Duration::from_secs(30);

/// How long a node that has no time is left alone: its `Retry-After`.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A running Firstcome.
#[derive(Debug)]
pub struct System {
    child: GuardedChild,
    folder: PathBuf,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).unwrap().to_owned()
}

/// The binary, built before.
pub fn firstcome() -> PathBuf {
    binary("firstcome")
}

/// A program of the workspace, built before.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let profile = exe.parent().and_then(Path::parent).unwrap();
    let binary = profile.join(name);
    assert!(binary.is_file(), "{} is missing: run `cargo build` first", binary.display());
    binary
}

/// A script that comes with the product, in `deploy/`.
pub fn deploy(name: &str) -> PathBuf {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(name);
    assert!(script.is_file(), "{} is missing", script.display());
    script
}

impl System {
    /// `firstcome up` with these options, in a folder of its own and on a free port; returns when it is ready.
    pub async fn up(name: &str, options: &[&str]) -> Self {
        Self::up_with(name, options, &[]).await
    }

    /// The same, with these variables in its environment.
    pub async fn up_with(name: &str, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let root = target_folder().join("system-tests");
        let folder = root.join(name);
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        let port = local_stack::free_port().unwrap();
        let mut all =
            vec!["--port".to_owned(), port.to_string(), "--quick".to_owned(), "--no-catalogue".to_owned()];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let child = Self::spawn(&folder, &all, &environment);
        let mut system = Self { child, folder, options: all, environment };
        system.until_ready().await;
        system
    }

    fn spawn(folder: &Path, options: &[String], environment: &[(String, String)]) -> GuardedChild {
        let command = GuardedCommand::new(firstcome(), folder.join("up.log"));
        environment
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value))
            .arg("up")
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(options)
            .spawn()
            .unwrap()
    }

    /// Starts again in the same folder, with the same options.
    pub async fn start_again(&mut self) {
        self.child = Self::spawn(&self.folder, &self.options, &self.environment);
        self.until_ready().await;
    }

    /// `kill -9` of `firstcome up` itself; everything it started ends with it.
    pub async fn kill(&mut self) {
        self.child.end(Signal::Kill, Duration::from_secs(10)).await.unwrap();
    }

    /// An orderly end; panics if it is none.
    pub async fn down(&mut self) {
        let status = self.child.end(Signal::Terminate, Duration::from_secs(60)).await.unwrap();
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.log());
    }

    async fn until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let status = self.child.try_wait().unwrap();
            assert!(status.is_none(), "firstcome ended with {status:?}:\n{}", self.log());
            let output = self.run(&["status"]);
            if output.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(Instant::now() < deadline, "not ready: {said}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until everything is ready again after a fault.
    pub async fn ready_again(&mut self) {
        self.until_ready().await;
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("up.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// Runs a `firstcome` command against this system.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        let (command, rest) = arguments.split_first().unwrap();
        Command::new(firstcome())
            .arg(command)
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args(rest)
            .output()
            .unwrap()
    }

    /// Runs a `sagactl` command against this system.
    pub fn sagactl(&self, arguments: &[&str]) -> Said {
        Said::of(self.sagactl_command(arguments).output().unwrap())
    }

    /// The same, to be run.
    pub fn sagactl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("sagactl"));
        let endpoints = self.data().join("endpoints.json");
        command.args(arguments).env("SAGACTL_ENDPOINTS", endpoints).env("SAGACTL_OPERATOR", "kim");
        command
    }

    /// The folder with data, logs and pid files.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What `endpoints.json` says.
    pub fn endpoints(&self) -> Value {
        let text = std::fs::read_to_string(self.data().join("endpoints.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// `host:port` of Kafka.
    pub fn kafka(&self) -> String {
        self.endpoints()["kafka"].as_str().unwrap().to_owned()
    }

    /// All databases of a service, home first.
    pub async fn all_databases(&self, service: &str) -> Vec<sqlx::PgPool> {
        let endpoints = self.endpoints();
        let urls = endpoints["postgres"][service].as_array().unwrap();
        let open = urls.iter().map(|url| sqlx::PgPool::connect(url.as_str().unwrap()));
        futures::future::try_join_all(open).await.unwrap()
    }

    /// A service's database; of several, its home.
    pub async fn database(&self, service: &str) -> sqlx::PgPool {
        let endpoints = self.endpoints();
        let url = endpoints["postgres"][service][0].as_str().unwrap();
        sqlx::PgPool::connect(url).await.unwrap()
    }

    /// URLs of all api nodes.
    pub fn apis(&self) -> Vec<String> {
        let endpoints = self.endpoints();
        endpoints["api"].as_array().unwrap().iter().map(|url| url.as_str().unwrap().to_owned()).collect()
    }

    /// A token with these roles.
    pub fn token(&self, customer: Uuid, roles: &[&str]) -> String {
        let customer = customer.to_string();
        let mut arguments = vec!["token", "--customer", &customer];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Somebody who uses the API: a new customer.
    pub fn customer(&self) -> Client {
        let id = Uuid::new_v4();
        Client::new(self.apis(), id, self.token(id, &["customer"]))
    }

    /// The same, with an address in the token.
    pub fn customer_with_mail(&self, address: &str) -> Client {
        let id = Uuid::new_v4();
        let output = self.run(&["token", "--customer", &id.to_string(), "--email", address]);
        let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Client::new(self.apis(), id, token)
    }

    /// Somebody who uses the API: an admin.
    pub fn admin(&self) -> Client {
        let id = Uuid::new_v4();
        Client::new(self.apis(), id, self.token(id, &["admin"]))
    }
}

/// What an operator's command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

impl Said {
    /// What a program that has ended said.
    pub fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output, if the exit code is this one; else panics with everything.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.error);
        &self.out
    }

    /// The same, as JSON.
    #[track_caller]
    pub fn json(&self, code: i32) -> Value {
        serde_json::from_str(self.expect(code)).unwrap()
    }
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body; null if there is none.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is this one; else panics with everything.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Asserts a problem of this status and code.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail", "trace_id"] {
            assert!(self.body[field].is_string(), "{field} is missing: {}", self.body);
        }
    }

    /// The `Location` header.
    #[track_caller]
    pub fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }
}

/// Somebody who uses the API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    apis: Vec<String>,
    /// Who it is.
    pub id: Uuid,
    /// The token.
    pub token: String,
}

impl Client {
    /// A user of these api nodes.
    pub fn new(apis: Vec<String>, id: Uuid, token: String) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { http, apis, id, token }
    }

    /// The same user, at another node.
    pub fn at(&self, node: usize) -> Self {
        let api = self.apis.get(node).unwrap_or_else(|| panic!("there is no node {node}")).clone();
        Self { apis: vec![api], ..self.clone() }
    }

    /// A request to the first node, with the token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let api = self.apis.first().unwrap();
        self.http.request(method, format!("{api}{path}")).bearer_auth(&self.token)
    }

    /// Sends it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.unwrap()
    }

    /// Sends it; an error if there is no answer.
    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body })
    }

    /// `GET`. On a machine that tests keep busy a node may say that it has no time now: asked again, as it wishes.
    pub async fn get(&self, path: &str) -> Answer {
        let asked = Instant::now();
        loop {
            let answer = self.send(self.request(Method::GET, path)).await;
            if answer.body["code"] != "unavailable" || asked.elapsed() > SOON {
                return answer;
            }
            eprintln!("GET {path}: {}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// `POST`
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT`
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Places an order for one product.
    pub async fn order(&self, sku: &str, quantity: u32, method: Option<&str>) -> Answer {
        self.post("/v1/orders", &order_body(&[(sku, quantity)], method)).await
    }

    /// Places an order that must be accepted; its id. Tried again, under one key, while the node has no time.
    pub async fn ordered(&self, sku: &str, quantity: u32, method: Option<&str>) -> String {
        let (key, body) = (Uuid::new_v4().to_string(), order_body(&[(sku, quantity)], method));
        let asked = Instant::now();
        loop {
            let order = self.request(Method::POST, "/v1/orders").header("idempotency-key", &key).json(&body);
            let answer = self.send(order).await;
            if answer.body["code"] != "unavailable" || asked.elapsed() > SOON {
                return answer.expect(202)["id"].as_str().unwrap().to_owned();
            }
            eprintln!("POST /v1/orders: {}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// The order.
    pub async fn see(&self, order: &str) -> Value {
        self.get(&format!("/v1/orders/{order}")).await.expect(200)
    }

    /// The order, as soon as it is in one of these states.
    pub async fn until(&self, order: &str, states: &[&str]) -> Value {
        testkit::eventually(SOON, &format!("{order} is {states:?}"), async || {
            let seen = self.see(order).await;
            if states.iter().any(|state| seen["state"] == **state) { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    /// The order, as soon as this holds.
    pub async fn until_order(&self, order: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        testkit::eventually(SOON, &format!("{order}: {what}"), async || {
            let seen = self.see(order).await;
            if holds(&seen) { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    /// The product.
    pub async fn product(&self, sku: &str) -> Value {
        self.get(&format!("/v1/products/{sku}")).await.expect(200)
    }

    /// Waits until this many units are available.
    pub async fn until_available(&self, sku: &str, units: i64) {
        testkit::eventually(SOON, &format!("{units} of {sku} are available"), async || {
            let seen = self.product(sku).await;
            if seen["available"] == units { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }

    /// Registers a new product with this stock and waits until it can be ordered; its sku.
    pub async fn new_product(&self, stock: u32, changes: &Value) -> String {
        let sku = testkit::unique("SKU", '-').to_uppercase();
        let asked = Instant::now();
        loop {
            let answer =
                self.put(&format!("/v1/admin/products/{sku}"), &product_body(&sku, stock, changes)).await;
            // 200: a try before this one, whose answer was that the node has no time, went through all the same.
            if matches!(answer.status.as_u16(), 200..=202) {
                break;
            }
            let has_no_time = answer.body["code"] == "unavailable" && asked.elapsed() < SOON;
            assert!(has_no_time, "{}", answer.body);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        testkit::eventually(SOON, "the product can be read", async || {
            match self.get(&format!("/v1/products/{sku}")).await.status {
                StatusCode::OK => Ok(()),
                status => Err(status),
            }
        })
        .await;
        sku
    }
}

/// Waits until no order is on its way.
pub async fn all_at_rest(customer: &Client, orders: &[String]) {
    const AT_REST: [&str; 8] = [
        "AWAITING_PAYMENT",
        "PAID",
        "SHIPPED",
        "DELIVERED",
        "CANCELLED",
        "REJECTED",
        "PAYMENT_FAILED",
        "EXPIRED",
    ];
    for order in orders {
        testkit::eventually(Duration::from_secs(60), &format!("{order} is at rest"), async || {
            let seen = customer.see(order).await;
            if AT_REST.iter().any(|state| seen["state"] == **state) { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }
}

/// Body of a product with that name; `changes` win.
pub fn product_body(name: &str, stock: u32, changes: &Value) -> Value {
    let mut body = json!({
        "name": name, "option": null, "category": "shoes", "kind": "limited",
        "price": {"amount": 129_000, "currency": "KRW"}, "sale": null, "limit_per_customer": null,
        "initial_stock": stock,
    });
    if let (Some(body), Some(changes)) = (body.as_object_mut(), changes.as_object()) {
        body.extend(changes.clone());
    }
    body
}

/// Body of an order.
pub fn order_body(lines: &[(&str, u32)], method: Option<&str>) -> Value {
    let lines: Vec<Value> =
        lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
    match method {
        Some(method) => json!({"lines": lines, "payment": {"method": method}}),
        None => json!({"lines": lines}),
    }
}

impl System {
    /// Pid of a service's process (`stock-worker-1`); with `--separate` only.
    pub fn service_pid(&self, name: &str) -> Option<u32> {
        local_stack::PidFile::new(self.data().join("run").join(format!("{name}.pid"))).alive()
    }

    /// Sends a signal to a server of the private stack.
    pub fn signal_part(&self, part: local_stack::Part, signal: Signal) {
        let pid =
            local_stack::Stack::pid_in(&self.data(), part).unwrap_or_else(|| panic!("{part:?} does not run"));
        signal.send(pid).unwrap();
    }

    /// `kill -9` of one service, as soon as it runs.
    pub async fn kill_service(&self, name: &str) -> u32 {
        let pid = testkit::eventually(SOON, &format!("{name} runs"), async || {
            self.service_pid(name).ok_or("no pid file of a living process")
        })
        .await;
        Signal::Kill.send(pid).unwrap();
        pid
    }

    /// What the auditor reads.
    pub async fn databases(&self) -> auditor::Databases {
        auditor::Databases {
            stock: self.all_databases("stock").await,
            payment: self.all_databases("payment").await,
            api: self.database("api").await,
        }
    }

    /// The audit, as soon as nothing is on its way; panics if it does not become clean, if somebody was served out of turn,
    /// or if an order went a way that it may not.
    pub async fn audited(&self) -> auditor::Report {
        let report = self.audited_databases().await;
        let turns = self.turns().await;
        assert_eq!(turns.violations, [], "first come, first served");
        let databases = self.databases().await;
        assert_eq!(self.trails(&databases).await.violations, [], "each order went a legal way");
        // What is stored is what the log leads to.
        self.sagactl(&["replay", "--all"]).expect(0);
        report
    }

    /// The same, of the databases alone: quick, also after many orders.
    pub async fn audited_databases(&self) -> auditor::Report {
        let databases = self.databases().await;
        testkit::eventually(Duration::from_secs(90), "the audit is clean", async || {
            let report = auditor::audit(&databases).await.map_err(|error| error.to_string())?;
            if report.is_clean() {
                Ok(report)
            } else {
                Err(format!("{:?} {:?}", report.violations, report.unsettled))
            }
        })
        .await
    }

    /// Appends a record with a producer that nobody here wrote.
    pub fn produce(&self, topic: &str, key: Option<&str>, partition: Option<&str>, value: &str) {
        let file = self.data().join("record");
        std::fs::write(&file, value).unwrap();
        let mut kcat = Command::new("kcat");
        kcat.args(["-P", "-b", &self.kafka(), "-t", topic, "-X", "topic.partitioner=murmur2_random"]);
        if let Some(key) = key {
            kcat.args(["-k", key]);
        }
        if let Some(partition) = partition {
            kcat.args(["-p", partition]);
        }
        let output = kcat.arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes the databases of orchestrator and api anew from Kafka alone; panics unless they are equal to the live ones.
    pub async fn rebuilt(&self) {
        for service in ["orchestrator", "api"] {
            let database = self.database(service).await;
            let name = format!("{service}_{}", Uuid::new_v4().simple());
            let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(sql).execute(&database).await.unwrap();
            let endpoints = self.endpoints();
            let live = endpoints["postgres"][service][0].as_str().unwrap();
            let (server, _) = live.rsplit_once('/').unwrap();
            let said = self.sagactl(&[
                "rebuild",
                "--service",
                service,
                "--into",
                &format!("{server}/{name}"),
                "--json",
            ]);
            let rebuilt = said.json(0);
            assert!(
                rebuilt["compared"].as_object().unwrap().values().any(|entries| entries.as_u64() > Some(0)),
                "{rebuilt}"
            );
        }
    }

    /// Which way each order went, by the logs.
    pub async fn trails(&self, databases: &auditor::Databases) -> auditor::trail::Trails {
        let (kafka, shown) = (self.kafka(), auditor::trail::shown(databases).await.unwrap());
        let checked = tokio::task::spawn_blocking(move || auditor::trail::check_logs(&kafka, &shown));
        checked.await.unwrap().unwrap()
    }

    /// Who was served when, by the logs.
    pub async fn turns(&self) -> auditor::first_come::FirstCome {
        let kafka = self.kafka();
        tokio::task::spawn_blocking(move || auditor::first_come::check_logs(&kafka)).await.unwrap().unwrap()
    }
}
