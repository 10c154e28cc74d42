//! Where things are in the data folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use local_stack::{PidFile, Stack};

/// The data folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Absolute from now on, because services have working folders of their own.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn endpoints(&self) -> PathBuf {
        self.dir.join("endpoints.json")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.join("keys.json")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// Mails that customers would get.
    pub(crate) fn mailbox(&self) -> PathBuf {
        self.dir.join("mail")
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }

    /// Names the process of `up` from the moment when everything is ready.
    pub(crate) fn ready(&self) -> PidFile {
        PidFile::new(self.run("ready.pid"))
    }

    pub(crate) fn service_pid(&self, name: &str) -> PidFile {
        PidFile::new(self.run(&format!("{name}.pid")))
    }

    /// The process of the running `up`, if there is one.
    pub(crate) fn owner(&self) -> Option<u32> {
        Stack::owner_of(&self.dir)
    }

    pub(crate) fn make(&self) -> anyhow::Result<()> {
        for dir in [self.dir.join("run"), self.dir.join("log")] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let partial = path.with_extension("partial");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
