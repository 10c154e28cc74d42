//! A disk that is full for one database: its outbox can't grow, so no transaction of that service can commit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use local_stack::{Part, Stack};
use system_tests::System;

/// What PostgreSQL says when a file can't grow.
const NO_SPACE: &str = "could not extend file";
/// How long there is no space.
const FULL_FOR: Duration = Duration::from_secs(3);
/// So far into a block a file may grow: PostgreSQL takes half a written block for a full disk (SQLSTATE 53100).
const INTO_BLOCK: u64 = 4096;

/// Returns when there is space again.
pub(crate) async fn is_full(system: &System, service: &str) {
    let database = system.database(service).await;
    // Larger than any file of the write-ahead log, which must not stop; dead at once, so no space that anybody could use.
    let padding = "INSERT INTO messaging_outbox (partition_id, consumer_group, topic, epoch, seq, body) \
                   SELECT 0, 'padding', 'padding', 0, seq, convert_to(repeat('x', 1900), 'UTF8') \
                   FROM generate_series(1, 10000) AS seq";
    let mut undone = database.begin().await.unwrap();
    sqlx::query(padding).execute(&mut *undone).await.unwrap();
    undone.rollback().await.unwrap();
    let file = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('messaging_outbox')";
    let file: String = sqlx::query_scalar(file).fetch_one(&database).await.unwrap();

    let log = system.data().join("log").join("postgres.log");
    let refused = || fs::read_to_string(&log).unwrap_or_default().matches(NO_SPACE).count();
    let before = refused();
    limit_files(system, &(fs::metadata(file).unwrap().len() + INTO_BLOCK).to_string());
    testkit::eventually(Duration::from_secs(60), "a transaction fails for want of disk", async || {
        if refused() > before { Ok(()) } else { Err("none does") }
    })
    .await;
    tokio::time::sleep(FULL_FOR).await;
    limit_files(system, "unlimited");
}

/// No file of PostgreSQL's may be larger.
fn limit_files(system: &System, bytes: &str) {
    let server = Stack::pid_in(&system.data(), Part::Postgres).unwrap();
    // The server first: who connects from now on is its child and inherits the limit.
    limit(server, bytes);
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    for child in children.split_whitespace() {
        limit(child.parse().unwrap(), bytes);
    }
}

/// As its own user, who needs no rights for that. A connection may have ended meanwhile.
fn limit(pid: u32, bytes: &str) {
    let process = format!("/proc/{pid}");
    let Ok(owner) = fs::metadata(&process) else { return };
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")])
        .uid(owner.uid())
        .gid(owner.gid())
        .output()
        .unwrap();
    assert!(limited.status.success() || fs::metadata(process).is_err(), "{limited:?}");
}
