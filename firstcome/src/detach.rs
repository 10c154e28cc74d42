//! `up --detach`: the same program again, in a session of its own, until it is ready.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::home::Home;

pub(crate) async fn run(home: &Home) -> anyhow::Result<ExitCode> {
    let path = home.log("up");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    home.ready().remove();
    let exe = std::env::current_exe().context("cannot find this program")?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--detach" && arg != "-d");
    let mut child = Command::new("setsid")
        .arg(exe)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot write the log")?)
        .stderr(log)
        .spawn()
        .context("setsid (util-linux) can't be run")?;
    let mut shown = 0;
    loop {
        // Asked before the log is read, so that the last words are shown.
        let ended = child.try_wait().context("cannot look after the started process")?;
        let is_ready = home.ready().alive() == Some(child.id());
        shown = copy_from(&path, shown)?;
        if let Some(status) = ended {
            return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
        }
        if is_ready {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints what was written since `from`; returns where it ended.
fn copy_from(path: &std::path::Path, from: u64) -> anyhow::Result<u64> {
    let copy = || -> std::io::Result<u64> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Whoever stopped reading (`| head`) may; the system is started all the same.
        let mut out = std::io::stdout();
        out.write_all(&bytes).and_then(|()| out.flush()).ok();
        Ok(from + u64::try_from(bytes.len()).unwrap_or_default())
    };
    copy().with_context(|| format!("cannot read {}", path.display()))
}
