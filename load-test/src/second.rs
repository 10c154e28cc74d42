//! A second system beside the running one, for figures of both by turns: before and after on one system do not tell a tenth from the
//! machine's own moods.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::{GuardedChild, GuardedCommand, Signal, last_lines};

use crate::endpoints::Endpoints;
use crate::machine::Processes;

/// How long it may take until it is up.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// How long it may take until it is down.
const DOWN_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A system of its own, empty at first, made by the running one's own program as `firstcome up` makes it without options. It ends with this program,
/// however that ends; what it stored goes with [`Second::end`], or when the next one is started.
pub(crate) struct Second {
    pub(crate) endpoints: Endpoints,
    child: GuardedChild,
    program: PathBuf,
    home: PathBuf,
}

impl Second {
    /// Starts one in the folder `second` within the running system's.
    ///
    /// # Errors
    /// If the running system has other processes than one without options, or a second one runs there already.
    pub(crate) async fn start(beside: &Endpoints) -> anyhow::Result<Self> {
        let processes = Processes::of(&beside.home);
        let services = processes.pid("services").context("the running system's program is not known")?;
        let program = PathBuf::from(format!("/proc/{services}/exe"));
        let home = beside.home.join("second");
        reset(&program, &home)?;
        let log = beside.home.join("log").join("second.log");
        let up = GuardedCommand::new(&program, &log)
            .args(["up", "--port", "0", "--no-catalogue", "--data-dir"])
            .arg(&home);
        let mut child = up.spawn().context("a second system can't be started")?;
        let (file, begun) = (home.join("endpoints.json"), Instant::now());
        // Written once everything is ready.
        while !file.is_file() {
            let is_coming = child.try_wait()?.is_none() && begun.elapsed() < UP_WITHIN;
            anyhow::ensure!(is_coming, "the second system did not come up:\n{}", last_lines(&log));
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let second = Self { endpoints: Endpoints::read(&file)?, child, program, home };
        let (ours, its) = (processes.names(), Processes::of(&second.home).names());
        if ours != its {
            second.end().await?;
            anyhow::bail!(
                "the running system ({}) is not like one without options ({}): start it without --separate, --replicas and servers \
                 of yours",
                ours.join(", "),
                its.join(", ")
            );
        }
        Ok(second)
    }

    /// Ends it, and removes what it stored.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let ended = self.child.end(Signal::Terminate, DOWN_WITHIN).await?;
        let is_well = ended.is_some_and(|status| status.success());
        anyhow::ensure!(is_well, "the second system ended badly; its data are in {}", self.home.display());
        reset(&self.program, &self.home)
    }
}

/// Deletes what is left of one that does not run.
fn reset(program: &Path, home: &Path) -> anyhow::Result<()> {
    let reset = Command::new(program).args(["reset", "--yes", "--data-dir"]).arg(home).output()?;
    let said = String::from_utf8_lossy(&reset.stderr);
    anyhow::ensure!(reset.status.success(), "{} can't be emptied: {}", home.display(), said.trim());
    Ok(())
}
