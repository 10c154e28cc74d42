//! Children that never outlive us, without any unsafe code.
//!
//! A process that is killed with `SIGKILL` cannot tidy up after itself, and a broker left behind keeps its port and its data
//! folder. So each child gets a watcher: a shell that reads a pipe whose other end only we hold. When we die, however we die, the
//! system closes the pipe, the watcher sees its end and kills the child's process group. When the child ends first, we tell the watcher
//! with a line *after* the child was reaped, so that it never kills a pid that is somebody else's by then.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::folder;

/// `$$` stays the pid of the first shell, which `exec` turns into the child. The watcher is a grandchild whose parent ended, so the child never meets a
/// child of its own that it doesn't know.
const GUARD: &str = r#"
exec 3<&0 </dev/null
( ( trap '' HUP INT TERM; exec >/dev/null 2>&1; read -r line <&3 || kill -s KILL -- "-$$" ) & )
exec 3<&-
exec "$@"
"#;

/// A signal that is sent to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ends at once, no clean-up.
    Kill,
    /// Asks to end.
    Terminate,
    /// As Ctrl-C; PostgreSQL's fast shutdown.
    Interrupt,
    /// Freezes the process.
    Stop,
    /// Thaws it.
    Continue,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }

    /// Sends the signal to a process; a dead one is fine. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// When no shell can be started.
    pub fn send(self, pid: u32) -> io::Result<()> {
        Command::new("/bin/sh")
            .args(["-c", r#"kill -s "$0" -- "$1""#, self.name(), &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(|_| ())
    }
}

/// What to run under guard.
#[derive(Debug, Clone)]
pub struct GuardedCommand {
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    log: PathBuf,
}

impl GuardedCommand {
    /// `program` with its output appended to `log`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Self {
        Self { args: vec![program.as_ref().to_owned()], envs: Vec::new(), cwd: None, log: log.into() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Starts it in a process group of its own, so that Ctrl-C in a terminal reaches us only and we end children in good order.
    ///
    /// # Errors
    /// When the log can't be opened or no shell be started. A program that can't be run shows as a child that ended with 126 or 127.
    pub fn spawn(&self) -> io::Result<GuardedChild> {
        if let Some(parent) = self.log.parent() {
            fs::create_dir_all(parent)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GUARD, "guard"])
            .args(&self.args)
            .envs(self.envs.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(GuardedChild { child, pipe, status: None })
    }
}

impl GuardedCommand {
    /// Runs it to its end and returns what it wrote to the log, too. Dropping the future kills it.
    ///
    /// # Errors
    /// As [`GuardedCommand::spawn`].
    pub(crate) async fn run_to_end(&self) -> io::Result<(ExitStatus, String)> {
        let from = fs::metadata(&self.log).map_or(0, |file| file.len());
        let mut child = self.spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, folder::tail(&self.log, from)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A running child; dropping it kills it.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    pipe: Option<ChildStdin>,
    status: Option<ExitStatus>,
}

impl GuardedChild {
    /// Its process id, which is also that of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                self.dismiss_watcher();
            }
        }
        Ok(self.status)
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When the system can't say whether it lives, or no shell can be started.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        signal.send(self.pid())
    }

    /// Polls until it has ended or `deadline` has passed. Cancel-safe.
    ///
    /// # Errors
    /// When the system can't say.
    pub async fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks with `signal`, waits for `grace`, then kills.
    ///
    /// # Errors
    /// When the system can't say whether it lives.
    pub async fn end(&mut self, signal: Signal, grace: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(signal)?;
        if let Some(status) = self.wait_until(Instant::now() + grace).await? {
            return Ok(Some(status));
        }
        self.signal(Signal::Kill)?;
        self.wait_until(Instant::now() + Duration::from_secs(10)).await
    }

    fn dismiss_watcher(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A watcher that is gone already is fine.
            drop(pipe.write_all(b"ended\n"));
        }
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        if self.status.is_none() && self.child.kill().is_ok() {
            // Killed: it ends within milliseconds, and reaping it before the watcher is dismissed keeps its pid reserved.
            drop(self.child.wait());
        }
        self.dismiss_watcher();
    }
}
