//! Keeps services and servers running: what ends by itself is reported and started again after a pause.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::{GuardedChild, GuardedCommand, Part, Signal, Stack};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::home::{Home, write_private};
use crate::services::Replica;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Whoever ran this long begins with a short pause again.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// How long a service may take to end in good order.
const GRACE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Pauses between restarts: doubled each time, from the start again after a stable run.
struct Pauses {
    next: Duration,
    began: Instant,
}

impl Pauses {
    fn new() -> Self {
        Self { next: FIRST_PAUSE, began: Instant::now() }
    }

    /// Waits before the next start; `false` if everything is to end instead.
    async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        if self.began.elapsed() >= STABLE_AFTER {
            self.next = FIRST_PAUSE;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        let goes_on = shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some();
        self.began = Instant::now();
        goes_on
    }
}

/// How services are run.
#[derive(Debug, Clone)]
pub(crate) enum Processes {
    /// All in this process.
    One,
    /// One each, from the binaries in this folder.
    Separate(PathBuf),
}

/// Starts every replica; they run until `shutdown`, and `JoinSet::join_next` ends with the last of them.
pub(crate) fn start(
    home: &Home,
    replicas: &[Replica],
    processes: &Processes,
    shutdown: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut running = JoinSet::new();
    for replica in replicas {
        let (replica, shutdown) = (replica.clone(), shutdown.clone());
        match processes {
            Processes::One => {
                running.spawn(keep_task(replica, shutdown));
            }
            Processes::Separate(binaries) => {
                let file = home.run(&format!("{}.toml", replica.name));
                write_private(&file, &toml::to_string(&replica.settings)?)?;
                let binary = binaries.join(replica.service.name());
                anyhow::ensure!(
                    binary.is_file(),
                    "{} is missing: build it first, or leave --separate out",
                    binary.display()
                );
                let command = GuardedCommand::new(binary, home.log(&replica.name)).arg("--config").arg(file);
                running.spawn(keep_process(home.clone(), replica, command, shutdown));
            }
        }
    }
    Ok(running)
}

/// A service as a task of this process.
async fn keep_task(replica: Replica, shutdown: CancellationToken) {
    let mut pauses = Pauses::new();
    loop {
        let run = replica.service.run(replica.settings.clone(), shutdown.child_token());
        // A task of its own: a panic ends the service, not the system.
        let outcome = tokio::spawn(run).await;
        if shutdown.is_cancelled() {
            return;
        }
        match outcome {
            Ok(Ok(())) => {
                tracing::error!(service = replica.name, "a service ended by itself, starting it again")
            }
            Ok(Err(error)) => {
                let error = format!("{error:#}");
                tracing::error!(service = replica.name, error, "a service failed, starting it again");
            }
            Err(error) => {
                tracing::error!(service = replica.name, %error, "a service panicked, starting it again")
            }
        }
        if !pauses.wait(&shutdown).await {
            return;
        }
    }
}

/// A service as a process of its own, named by a pid file.
async fn keep_process(home: Home, replica: Replica, command: GuardedCommand, shutdown: CancellationToken) {
    let pid_file = home.service_pid(&replica.name);
    let mut pauses = Pauses::new();
    loop {
        let outcome = match command.spawn() {
            Ok(child) => {
                if let Err(error) = pid_file.write(child.pid()) {
                    tracing::warn!(service = replica.name, %error, "its pid file could not be written");
                }
                tracing::info!(service = replica.name, pid = child.pid(), "service started");
                watch(child, &shutdown).await
            }
            Err(error) => Err(error).context("it could not be started"),
        };
        pid_file.remove();
        if shutdown.is_cancelled() {
            return;
        }
        match outcome {
            Ok(status) => {
                tracing::error!(service = replica.name, %status, "a service died, starting it again")
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(service = replica.name, error, "a service is lost, starting it again");
            }
        }
        if !pauses.wait(&shutdown).await {
            return;
        }
    }
}

/// Waits for the child's end; when all is to end, ends it.
async fn watch(mut child: GuardedChild, shutdown: &CancellationToken) -> anyhow::Result<String> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.to_string());
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            let status = child.end(Signal::Terminate, GRACE).await?;
            return Ok(status.map_or_else(|| "still running".to_owned(), |status| status.to_string()));
        }
    }
}

/// Starts private servers again that died, until `shutdown`.
pub(crate) async fn keep_servers(stack: Arc<Stack>, shutdown: CancellationToken) {
    let mut pauses = Pauses::new();
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        for part in Part::ALL {
            if !stack.is_own(part) || stack.pid(part).await.is_some() || shutdown.is_cancelled() {
                continue;
            }
            tracing::error!(%part, log = %stack.log(part).display(), "a server died, starting it again");
            if !pauses.wait(&shutdown).await {
                return;
            }
            let started = shutdown.run_until_cancelled(stack.start_part(part)).await;
            if let Some(Err(error)) = started {
                tracing::error!(%part, %error, "a server could not be started again");
            }
        }
    }
}
