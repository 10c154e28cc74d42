//! A second system beside the running one, for figures of both by turns: before and after on one system do not tell a tenth from the
//! machine's own moods.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::{GuardedChild, GuardedCommand, Signal};

use crate::endpoints::Endpoints;

/// How long it may take until it is up.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// How long it may take until it is down.
const DOWN_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A system of its own, empty at first, as `firstcome up` without options makes it. It ends with this program, however that ends.
pub(crate) struct Second {
    pub(crate) endpoints: Endpoints,
    child: GuardedChild,
    folder: PathBuf,
}

impl Second {
    /// Starts one in a folder within the running system's, with the `firstcome` that lies beside this program.
    pub(crate) async fn start(beside: &Endpoints) -> anyhow::Result<Self> {
        let firstcome = std::env::current_exe()?.with_file_name("firstcome");
        anyhow::ensure!(
            firstcome.is_file(),
            "{} is missing, and a second system is to be started with it: build it as this program was",
            firstcome.display()
        );
        let folder = beside.home.join("second");
        remove(&folder)?;
        let (home, log) = (folder.join("data"), folder.join("up.log"));
        let up = GuardedCommand::new(firstcome, &log)
            .args(["up", "--port", "0", "--no-catalogue", "--data-dir"])
            .arg(&home);
        let mut child = up.spawn().context("a second system can't be started")?;
        let (file, begun) = (home.join("endpoints.json"), Instant::now());
        // Written once everything is ready.
        while !file.is_file() {
            let has_ended = child.try_wait()?.is_some();
            anyhow::ensure!(
                !has_ended && begun.elapsed() < UP_WITHIN,
                "the second system did not come up:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Self { endpoints: Endpoints::read(&file)?, child, folder })
    }

    /// Ends it, and removes what it stored.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let ended = self.child.end(Signal::Terminate, DOWN_WITHIN).await?;
        anyhow::ensure!(
            ended.is_some_and(|status| status.success()),
            "the second system ended badly ({ended:?}); its data are in {}",
            self.folder.display()
        );
        remove(&self.folder)
    }
}

fn remove(folder: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
