//! The stack on real servers: one test after the other in one stack, because starting is what costs.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use local_stack::{Part, PidFile, Server, Signal, Stack, StackError, StackOptions, topics};
use sqlx::{Connection, Executor, PgConnection, Row};

const HOLD_ENV: &str = "LOCAL_STACK_TEST_HOLD";

fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    dir
}

#[expect(clippy::unwrap_used, reason = "test code")]
async fn count(stack: &Stack) -> i64 {
    let mut connection = PgConnection::connect(&stack.postgres_url("orchestrator")).await.unwrap();
    connection.fetch_one("SELECT count(*) FROM kept").await.unwrap().get(0)
}

#[tokio::test]
async fn data_and_ports_survive_stops_kills_and_restarts_of_parts_and_of_the_whole() {
    let dir = folder("lifecycle");
    let stack = Stack::start(StackOptions::for_tests(&dir)).await.unwrap();
    topics::ensure(&stack.kafka(), 2).await.unwrap();
    let mut connection = PgConnection::connect(&stack.postgres_url("orchestrator")).await.unwrap();
    connection.execute("CREATE TABLE kept (id int)").await.unwrap();

    let again = Stack::start(StackOptions::for_tests(&dir)).await;
    assert!(matches!(again, Err(StackError::Locked { pid: Some(_), .. })), "{again:?}");

    assert_eq!(Stack::owner_of(&dir), Some(std::process::id()));

    for part in Part::ALL {
        stack.stop_part(part).await.unwrap();
        assert_eq!(stack.pid(part).await, None);
        assert!(stack.answers(part).await.is_err(), "{part} is stopped, yet answers");
        stack.start_part(part).await.unwrap();
        stack.answers(part).await.unwrap();

        let began = Instant::now();
        stack.kill_part(part).await.unwrap();
        stack.start_part(part).await.unwrap();
        println!("{part}: killed and back after {:?}", began.elapsed());
    }
    topics::ensure(&stack.kafka(), 2).await.expect("the topics are still there");
    let other = topics::ensure(&stack.kafka(), 3).await;
    assert!(matches!(other, Err(StackError::Partitions { found: 2, wanted: 3, .. })), "{other:?}");
    let more =
        topics::ensure_replicated(&stack.kafka(), topics::Layout { partitions: 2, replication: 3 }).await;
    assert!(matches!(more, Err(StackError::Replication { found: 1, wanted: 3, .. })), "{more:?}");
    assert_eq!(count(&stack).await, 0);

    let (kafka, postgres) = (stack.kafka(), stack.postgres_url("api"));
    stack.stop().await.unwrap();
    assert_eq!(Stack::owner_of(&dir), None, "a stopped stack has no owner");
    let stack = Stack::start(StackOptions::for_tests(&dir)).await.unwrap();
    assert_eq!((stack.kafka(), stack.postgres_url("api")), (kafka, postgres), "same ports, same password");
    assert_eq!(count(&stack).await, 0);
    stack.stop().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Not a test of its own: the parent of the next one, which ends by `SIGKILL`.
#[tokio::test]
async fn holds_a_stack_when_asked_to() {
    let Ok(dir) = std::env::var(HOLD_ENV) else { return };
    let stack = Stack::start(StackOptions::for_tests(dir)).await.unwrap();
    println!("\nHOLDING");
    std::future::pending::<()>().await;
    drop(stack);
}

#[tokio::test]
async fn no_server_outlives_a_parent_that_was_killed_and_the_next_start_works() {
    let dir = folder("orphans");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_stack_when_asked_to", "--nocapture"])
        .env(HOLD_ENV, &dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "HOLDING"), "the parent did not start its stack");
    let files = Part::ALL.map(|part| PidFile::new(dir.join("run").join(format!("{}.pid", part.file_name()))));
    for file in &files {
        assert!(file.alive().is_some(), "{} runs", file.path().display());
    }
    Signal::Kill.send(parent.id()).unwrap();
    parent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    for file in &files {
        while file.alive().is_some() {
            assert!(Instant::now() < deadline, "{} outlived its parent", file.path().display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let stack = Stack::start(StackOptions::for_tests(&dir)).await.expect("starts on what the crash left");
    stack.stop().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn what_keeps_a_stack_from_starting_is_said_in_one_sentence() {
    let dir = folder("errors");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut options = StackOptions::for_tests(&dir);
    options.redis = Server::Own { port: Some(port) };
    let error = Stack::start(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("port {port}, wanted for Redis, is in use")), "{error}");

    options.redis = Server::OWN;
    options.kafka = Server::Yours("127.0.0.1:1".to_owned());
    options.postgres = Server::Yours("postgres://me:secret@127.0.0.1:1/".to_owned());
    options.redis = Server::Yours("redis://127.0.0.1:1".to_owned());
    let error = Stack::start(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("does not answer") && !error.contains("secret"), "{error}");

    std::fs::create_dir_all(dir.join("kafka")).unwrap();
    options.kafka = Server::OWN;
    let error = Stack::start(options).await.unwrap_err();
    assert!(matches!(error, StackError::HalfWritten { .. }), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}
