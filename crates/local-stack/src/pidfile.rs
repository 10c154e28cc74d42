//! Files that name a process beyond doubt: pid and the time it was started, because pids are used again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that says which process plays a role, safe against pids that were used again.
#[derive(Debug, Clone)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Names the file; nothing is read or written yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Writes `pid` and its start time; durable enough for a process crash, not for a power cut, which ends the process anyway.
    ///
    /// # Errors
    /// When the folder can't be made or the file not be written.
    pub fn write(&self, pid: u32) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&self.path, format!("{pid}\n{}\n", start_time(pid).unwrap_or_default()))
    }

    /// The process named by the file, if that very process still lives.
    #[must_use]
    pub fn alive(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.path).ok()?;
        let mut lines = text.lines();
        let pid: u32 = lines.next()?.trim().parse().ok()?;
        let started = lines.next()?.trim().to_owned();
        (start_time(pid)? == started).then_some(pid)
    }

    /// Whether the file exists, alive or not: it is left behind by a crash only.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Removes the file; a missing one is fine.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "pid file could not be removed");
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Start time of a living process in clock ticks since boot, as text; `None` for a dead one and for a zombie.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    // State was field 3; the start time is field 22.
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::PidFile;

    #[test]
    fn a_file_that_names_another_start_time_names_nobody() {
        let path = std::env::temp_dir().join(format!("pidfile-{}", std::process::id()));
        let file = PidFile::new(&path);
        file.write(std::process::id()).unwrap();
        assert_eq!(file.alive(), Some(std::process::id()));
        std::fs::write(&path, format!("{}\n1\n", std::process::id())).unwrap();
        assert_eq!(file.alive(), None, "the pid lives, but it is another process");
        file.remove();
        assert!(!file.exists());
    }
}
