#![doc = include_str!("../README.md")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod checks;
mod client;

pub use checks::all_at_rest;
pub use client::{Answer, Client, order_body, product_body};

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use local_stack::{GuardedChild, GuardedCommand, Signal};
use serde_json::Value;
use uuid::Uuid;

/// How long a change of state may take before a test fails.
pub const SOON: Duration = Duration::from_secs(30);

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
        if !options.contains(&"--partitions") {
            // Keys that are apart are in different partitions, as they are where it runs for real.
            all.extend(["--partitions", "2"].map(str::to_owned));
        }
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
}
