//! `firstcome` as it is used from a shell, on real servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use local_stack::Signal;

struct Shell {
    data: PathBuf,
    port: String,
}

impl Shell {
    fn new(name: &str) -> Self {
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&data));
        Self { data, port: local_stack::free_port().unwrap().to_string() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (name, rest) = arguments.split_first().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
        command.arg(name).arg("--data-dir").arg(&self.data).args(rest).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn up(&self, more: &[&str]) -> Command {
        let mut all = vec!["up", "--quick", "--port", &self.port];
        all.extend(more);
        self.command(&all)
    }
}

/// Whatever happens, nothing stays behind.
impl Drop for Shell {
    fn drop(&mut self) {
        self.run(&["down"]);
        drop(std::fs::remove_dir_all(&self.data));
    }
}

#[track_caller]
fn says(output: &Output, code: i32, words: &str) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{words:?} is not in:\n{text}");
}

fn says_about_topics(endpoints: &str) {
    let endpoints: serde_json::Value = serde_json::from_str(endpoints).unwrap();
    let kafka = endpoints.get("kafka").and_then(serde_json::Value::as_str).unwrap();
    let topics = |kafka: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
        command.args(["topics", "--kafka", kafka]).args(more).output().unwrap()
    };
    says(&topics(kafka, &[]), 0, "all topics are there (partitions: 1, replicas: 1)");
    says(&topics(kafka, &["--partitions", "3"]), 1, "has 1 partitions, but 3 are wanted");
    says(&topics(kafka, &["--replication", "3"]), 1, "has 1 replicas of a partition, but 3 are wanted");
    says(&topics(kafka, &["--replication", "6"]), 2, "6 is not in 1..=5");
}

fn owner(data: &Path) -> u32 {
    std::fs::read_to_string(data.join("run/lock")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn up_detached_then_a_second_up_a_crash_an_up_down_and_reset() {
    let shell = Shell::new("detached");
    says(&shell.run(&["status"]), 1, "nothing is running");
    says(&shell.run(&["down"]), 0, "nothing is running");

    says(&shell.up(&["--detach"]).output().unwrap(), 0, "Firstcome is up");
    says(&shell.run(&["status"]), 0, "ready");
    let url = format!("http://127.0.0.1:{}", shell.port);
    says(&shell.up(&[]).output().unwrap(), 1, "already running");
    says(&shell.up(&["--detach"]).output().unwrap(), 1, &url);
    says(&shell.run(&["reset", "--yes"]), 1, "stop it first");
    let endpoints = std::fs::read_to_string(shell.data.join("endpoints.json")).unwrap();
    assert!(endpoints.contains(&url), "{endpoints}");
    let sale = ["demo", "--buyers", "20", "--units", "5", "--abandon", "0", "--decline", "0"];
    says(&shell.run(&sale), 0, "nothing oversold: 5 sold of 5");
    says_about_topics(&endpoints);

    Signal::Kill.send(owner(&shell.data)).unwrap();
    testkit::eventually(Duration::from_secs(10), "the crash is noticed", async || {
        let output = shell.run(&["status"]);
        if output.status.code() == Some(1) { Ok(()) } else { Err("status says that it runs") }
    })
    .await;
    // Topics keep the partitions that they have, whatever is started later.
    let again = shell.up(&["--detach", "--replicas", "stock-worker=2"]).output().unwrap();
    says(&again, 0, "1 partition each: replicas beyond that stand by");
    says(&again, 0, "0 products registered, 7 were there");
    says(&shell.run(&["status"]), 0, "ready");

    says(&shell.run(&["down"]), 0, "the data is kept");
    assert!(!shell.data.join("endpoints.json").exists());
    says(&shell.run(&["reset"]), 1, "say --yes");
    says(&shell.run(&["reset", "--yes"]), 0, "deleted");
    assert!(!shell.data.exists());
}

#[tokio::test]
async fn up_works_after_a_kill_at_any_point_of_a_start() {
    let shell = Shell::new("killed");
    for point in ["formatting", "Kafka starting", "topics", "api-1", "catalogue"] {
        let mut up = shell.up(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let seen = { lines }.any(|line| {
            let words: Vec<String> = line.unwrap().split_whitespace().map(str::to_owned).collect();
            words.join(" ").contains(point)
        });
        // Only the first start formats.
        let mut said = || std::io::read_to_string(up.stderr.take().unwrap()).unwrap();
        assert!(seen, "{point:?} was not reached: {}", said());
        up.kill().unwrap();
        up.wait().unwrap();
    }
    says(&shell.up(&["--detach"]).output().unwrap(), 0, "Firstcome is up");
    says(&shell.run(&["status"]), 0, "ready");
    says(&shell.run(&["down"]), 0, "stopped");
}

#[test]
fn what_keeps_it_from_starting_is_one_sentence() {
    let shell = Shell::new("refused");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = shell.command(&["up", "--port", &port]).output().unwrap();
    says(&output, 1, &format!("port {port} for the api can't be used; choose another one with --port"));

    std::fs::create_dir_all(shell.data.join("java/bin")).unwrap();
    let java = shell.data.join("java/bin/java");
    std::fs::write(&java, "#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n").unwrap();
    std::fs::set_permissions(&java, PermissionsExt::from_mode(0o755)).unwrap();
    let output = shell.up(&[]).env("JAVA_HOME", shell.data.join("java")).output().unwrap();
    says(&output, 1, "Kafka needs Java 17 or newer");
    let output = shell.up(&[]).env("JAVA_HOME", shell.data.join("nowhere")).output().unwrap();
    says(&output, 1, "was not found; install a Java runtime");
    let output = shell.up(&[]).env("KAFKA_HOME", shell.data.join("nowhere")).output().unwrap();
    says(&output, 1, "KAFKA_HOME must name an unpacked Kafka 4 distribution");

    std::fs::create_dir_all(shell.data.join("postgres")).unwrap();
    says(&shell.up(&[]).output().unwrap(), 1, "only half written");
    says(&shell.run(&["reset", "--yes"]), 0, "deleted");

    says(&shell.up(&["--set", "day=1"]).output().unwrap(), 2, "is no duration");
    says(&shell.up(&["--set", "dya=1s"]).output().unwrap(), 2, "there is no setting");
    says(&shell.up(&["--replicas", "apis=2"]).output().unwrap(), 2, "there is no service");
    says(&shell.run(&["demo"]), 1, "nothing is running");
}

#[test]
fn options_may_stand_in_a_file() {
    let shell = Shell::new("file");
    std::fs::create_dir_all(&shell.data).unwrap();
    let file = shell.data.join("up.toml");
    std::fs::write(&file, "[set]\nday = \"10s\"\nprovider = { decline = 7 }\n").unwrap();
    let output = shell.command(&["up", "--config", file.to_str().unwrap()]).output().unwrap();
    says(&output, 1, "provider.decline: 7 is not between 0 and 1");
    std::fs::write(&file, "prot = 9000\n").unwrap();
    let output = shell.command(&["up", "--config", file.to_str().unwrap()]).output().unwrap();
    says(&output, 1, "unknown field `prot`");
}
