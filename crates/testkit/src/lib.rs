#![doc = include_str!("../README.md")]
#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use local_stack::topics::TopicSpec;
use local_stack::{Stack, StackOptions, topics};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

const POLL: Duration = Duration::from_millis(20);

static INFRA: OnceCell<Stack> = OnceCell::const_new();

/// The stack shared by all tests of this process. It has no topics and empty databases of the services' names.
///
/// # Panics
/// When it does not start.
pub async fn infra() -> &'static Stack {
    INFRA.get_or_init(|| private_stack("shared")).await
}

/// A stack of one's own, for tests that stop, kill or freeze servers. Ends when dropped.
///
/// # Panics
/// When it does not start.
pub async fn private_stack(name: &str) -> Stack {
    let dir = fresh_folder(name);
    match Stack::start(StackOptions::for_tests(dir)).await {
        Ok(stack) => stack,
        Err(error) => panic!("no stack to test on: {:#}", anyhow::Error::from(error)),
    }
}

/// URL of a new, empty database of the shared stack; `name` is a readable part of its name.
///
/// # Panics
/// When it can't be made.
pub async fn fresh_database(name: &str) -> String {
    database_in(infra().await, name).await
}

/// The same in a given stack.
///
/// # Panics
/// When it can't be made.
pub async fn database_in(stack: &Stack, name: &str) -> String {
    let name = unique(&name.replace('-', "_"), '_');
    let create = async {
        let mut connection = PgConnection::connect(&stack.postgres_url("postgres")).await?;
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE \"{name}\""))).await?;
        connection.close().await
    };
    match create.await {
        Ok(()) => stack.postgres_url(&name),
        Err(error) => panic!("database {name} could not be made: {error}"),
    }
}

/// A new topic of the shared stack, with a unique name that begins with `name`.
///
/// # Panics
/// When it can't be made.
pub async fn create_topic(name: &str, partitions: i32, is_compacted: bool) -> String {
    create_topic_in(infra().await, name, partitions, is_compacted).await
}

/// The same in a given stack.
///
/// # Panics
/// When it can't be made.
pub async fn create_topic_in(stack: &Stack, name: &str, partitions: i32, is_compacted: bool) -> String {
    let spec = TopicSpec { name: unique(name, '-'), is_compacted };
    match topics::create(&stack.kafka(), std::slice::from_ref(&spec), partitions).await {
        Ok(()) => spec.name,
        Err(error) => panic!("{error}"),
    }
}

/// `name` with something behind it that nobody else has.
#[must_use]
pub fn unique(name: &str, separator: char) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{name}{separator}{}", random.get(..10).unwrap_or_default())
}

/// Polls until `check` answers `Ok`, and returns its value.
///
/// # Panics
/// When `deadline` has passed, with what the last try said. A try that hangs is cancelled by the deadline too.
pub async fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    let mut last_status = "the first try did not end".to_owned();
    let mut tries = 0_u32;
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, check()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(status)) => last_status = status.to_string(),
            Err(_elapsed) => {}
        }
        tries += 1;
        // A try that is ready at once never meets the time-out above.
        if began.elapsed() >= deadline {
            panic!("not within {deadline:?}: {what}; {tries} tries, the last said: {last_status}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A new folder under `target/testkit/`; those of processes that ended are removed.
///
/// # Panics
/// When it can't be made.
pub fn fresh_folder(name: &str) -> PathBuf {
    let root = target_folder().join("testkit");
    remove_old(&root);
    let dir = root.join(format!("{}-{}", std::process::id(), unique(name, '-')));
    match fs::create_dir_all(&dir) {
        Ok(()) => dir,
        Err(error) => panic!("{} could not be made: {error}", dir.display()),
    }
}

/// The build's target folder, of which every test binary is a part.
fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| std::env::temp_dir().join("firstcome-target"), Path::to_owned)
}

/// Folders are named after the process that made them. A process that died took its servers with it, so its folder's lock is free.
fn remove_old(root: &Path) {
    if std::env::var_os("TESTKIT_KEEP").is_some() {
        return;
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().split('-').next().map(str::to_owned).unwrap_or_default();
        let lives = Path::new("/proc").join(owner).exists();
        let is_free = File::open(entry.path().join("run/lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if !lives && is_free {
            // Another test process may be removing the same one.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::{Connection, PgConnection};

    #[tokio::test]
    async fn the_shared_stack_gives_databases_and_topics_of_ones_own() {
        let (first, second) =
            tokio::join!(super::fresh_database("same-name"), super::fresh_database("same-name"));
        assert_ne!(first, second);
        PgConnection::connect(&first).await.unwrap().close().await.unwrap();
        let topic = super::create_topic("commands", 3, false).await;
        assert!(topic.starts_with("commands-"));
    }

    #[tokio::test]
    async fn another_runtime_uses_the_same_stack() {
        let database = super::fresh_database("other").await;
        PgConnection::connect(&database).await.unwrap().close().await.unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "the last said: still 2")]
    async fn a_claim_that_does_not_come_true_fails_with_what_was_seen_last() {
        super::eventually(Duration::from_millis(200), "one comes true", async || Err::<(), _>("still 2"))
            .await;
    }
}
