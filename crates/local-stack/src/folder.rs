//! The data folder: one owner at a time, pid files, logs, and what a crash left there.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Part, PidFile, Signal, StackError};

const LAST_LINES: usize = 8;
const POLL: Duration = Duration::from_millis(50);

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("run").join("lock")
}

pub(crate) fn pid_file(dir: &Path, part: Part) -> PidFile {
    PidFile::new(dir.join("run").join(format!("{}.pid", part.file_name())))
}

/// Makes the folder so that PostgreSQL's own user can pass through it, and returns its absolute path.
pub(crate) fn make_dir(dir: &Path) -> Result<PathBuf, StackError> {
    for folder in [dir.to_owned(), dir.join("run"), dir.join("log")] {
        fs::create_dir_all(&folder).map_err(StackError::io("make", &folder))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(StackError::io("protect", dir))?;
    dir.canonicalize().map_err(StackError::io("find", dir))
}

/// One owner at a time; the system releases the lock when the owner dies.
pub(crate) async fn take_lock(dir: &Path) -> Result<File, StackError> {
    let path = lock_path(dir);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StackError::io("open", &path))?;
    let mut taken = file.try_lock();
    // `owner_of` holds the lock for a moment.
    for _ in 0..10 {
        if !matches!(taken, Err(TryLockError::WouldBlock)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            drop(file.read_to_string(&mut text));
            return Err(StackError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(StackError::io("lock", path)(error)),
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(StackError::io("write", path))?;
    Ok(file)
}

/// We hold the lock, so a process of an earlier owner that still lives is on its way out, or its watcher was killed too.
pub(crate) async fn end_leftover(dir: &Path, part: Part) -> Result<(), StackError> {
    let file = pid_file(dir, part);
    let began = Instant::now();
    while let Some(pid) = file.alive() {
        if began.elapsed() > Duration::from_secs(20) {
            let log = dir.join("log").join(format!("{}.log", part.file_name()));
            let last_status = format!("process {pid} of an earlier run does not end");
            return Err(StackError::NotReady { part, waited: began.elapsed(), last_status, log });
        }
        tracing::warn!(%part, pid, "ending a leftover of an earlier run");
        Signal::Kill.send(pid).map_err(StackError::io("end the process of", file.path()))?;
        tokio::time::sleep(POLL).await;
    }
    file.remove();
    Ok(())
}

/// What was written to a log since `from`, at most its last 64 KiB.
pub(crate) fn tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(64 * 1024))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// What a log ends with, indented, for somebody who may not be able to open it.
pub fn last_lines(log: &Path) -> String {
    let text = tail(log, 0);
    let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
    lines.into_iter().rev().map(|line| format!("  {line}\n")).collect()
}

/// The process that holds the lock; 0 when it did not say who it is.
pub(crate) fn owner(dir: &Path) -> Option<u32> {
    let path = lock_path(dir);
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Some(text.trim().parse().unwrap_or_default())
        }
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// A name beside `target`, for making it there and renaming it once it is complete. It is a new one each time, so that what a killed predecessor's
/// program still writes can't meet ours; older ones are removed as far as they can be.
pub(crate) fn nursery(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = target.parent().unwrap_or(Path::new("."));
    let prefix = format!("{name}.new-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    parent.join(format!("{prefix}{}", uuid::Uuid::new_v4().simple()))
}
