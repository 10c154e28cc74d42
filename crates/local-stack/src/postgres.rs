//! PostgreSQL with durable settings, over TCP on the loopback interface only.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::process::Command;
use tokio::time::timeout;

use crate::child::GuardedCommand;
use crate::folder::nursery;
use crate::{Part, Progress, Signal, StackError};

const USER: &str = "firstcome";
const HINT: &str = "install postgresql (Debian, Ubuntu), or use your own with `--postgres URL`";

/// What is needed to start PostgreSQL again and again.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) port: u16,
    data: PathBuf,
    password: String,
    bin: PathBuf,
    /// The system user that runs it, when we are root: the server refuses root.
    run_as: Option<String>,
}

impl Postgres {
    /// Finds the programs and makes the data folder if there is none.
    pub(crate) async fn prepare(dir: &Path, port: u16, progress: &Progress) -> Result<Self, StackError> {
        let bin = find_programs()?;
        let run_as = choose_user().await?;
        let home = choose_home(dir, run_as.as_deref()).await?;
        let data = home.join("postgres");
        let password = password(&dir.join("run").join("postgres.password"), data.exists())?;
        let postgres = Self { port, data, password, bin, run_as };
        if postgres.data.exists() {
            postgres.check_data().await?;
        } else {
            progress(Part::Postgres, "making its data folder");
            postgres.initdb(&dir.join("log").join("postgres.log")).await?;
        }
        postgres.remove_stale_lock()?;
        Ok(postgres)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    pub(crate) fn command(&self, log: &Path) -> GuardedCommand {
        let mut command = self.as_user("postgres", log).arg("-D").arg(&self.data);
        let port = self.port.to_string();
        let settings = [
            ("port", port.as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            // What a commit promises: flushed to disk, torn pages repaired.
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("max_connections", "200"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
            ("checkpoint_timeout", "15min"),
            ("wal_compression", "lz4"),
            // Outboxes and open charges come and go at the rate of the orders: what they leave is to be used again before it is much.
            ("autovacuum_naptime", "15s"),
            // Statements here are short and many; compiling them costs more than it saves.
            ("jit", "off"),
            ("log_min_messages", "warning"),
        ];
        for (name, value) in settings {
            command = command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    /// One of PostgreSQL's programs, run as the user that may run it.
    fn as_user(&self, program: &str, log: &Path) -> GuardedCommand {
        let path = self.bin.join(program);
        let command = match &self.run_as {
            // Unlike su and runuser, setpriv becomes the program, so signals reach it.
            Some(user) => GuardedCommand::new("setpriv", log)
                .args(["--reuid", user, "--regid", user, "--init-groups", "--"])
                .arg(path),
            None => GuardedCommand::new(path, log),
        };
        command.current_dir("/")
    }

    /// Makes the data folder beside its final place and renames it: an interrupted one never looks complete.
    async fn initdb(&self, log: &Path) -> Result<(), StackError> {
        let nursery = nursery(&self.data);
        fs::create_dir_all(&nursery).map_err(StackError::io("make", &nursery))?;
        let secret = nursery.join("password");
        fs::write(&secret, &self.password).map_err(StackError::io("write", &secret))?;
        if let Some(user) = &self.run_as {
            let output = Command::new("chown").arg("-R").arg(user).arg(&nursery).output().await;
            check("giving PostgreSQL its folder", output, &nursery)?;
        }
        let (status, said) = self
            .as_user("initdb", log)
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"])
            .arg("--pgdata")
            .arg(nursery.join("data"))
            .arg("--pwfile")
            .arg(&secret)
            .run_to_end()
            .await
            .map_err(StackError::io("run a program for", &nursery))?;
        if !status.success() {
            let error = said.lines().find(|line| line.contains("error")).or_else(|| said.lines().next_back());
            return Err(StackError::Command {
                what: "making PostgreSQL's data folder",
                status: status.to_string(),
                last_line: error.unwrap_or("no output").to_owned(),
            });
        }
        fs::rename(nursery.join("data"), &self.data).map_err(StackError::io("rename", &nursery))?;
        fs::remove_dir_all(&nursery).map_err(StackError::io("remove", &nursery))?;
        Ok(())
    }

    async fn check_data(&self) -> Result<(), StackError> {
        for missing in ["PG_VERSION", "global/pg_control"] {
            if !self.data.join(missing).is_file() {
                return Err(StackError::HalfWritten { dir: self.data.clone(), missing });
            }
        }
        let file = self.data.join("PG_VERSION");
        let found = fs::read_to_string(&file).map_err(StackError::io("read", &file))?.trim().to_owned();
        let output = Command::new(self.bin.join("postgres")).arg("--version").output().await;
        let text = check("asking PostgreSQL for its version", output, &self.bin)?;
        let installed = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        if installed.split('.').next() == Some(found.as_str()) {
            return Ok(());
        }
        Err(StackError::OtherVersion { part: Part::Postgres, dir: self.data.clone(), found, installed })
    }

    /// A crash leaves `postmaster.pid` behind, and PostgreSQL refuses to start when that pid has become somebody else's. We own the folder, so whoever
    /// still serves it is a leftover of ours and ends now.
    fn remove_stale_lock(&self) -> Result<(), StackError> {
        let file = self.data.join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        let data = self.data.canonicalize().unwrap_or_else(|_| self.data.clone());
        if let Some(pid) = pid
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
        {
            Signal::Kill.send(pid).map_err(StackError::io("end the leftover server of", &self.data))?;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StackError::io("remove", &file)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the server answers; else why not.
pub(crate) async fn answers(url: &str) -> Result<(), String> {
    let attempt = async {
        let connection = PgConnection::connect(url).await.map_err(|error| error.to_string())?;
        connection.close().await.map_err(|error| error.to_string())
    };
    timeout(Duration::from_secs(5), attempt)
        .await
        .map_err(|_elapsed| "no answer to a connection".to_owned())?
}

/// Makes the databases that do not exist yet.
pub(crate) async fn create_databases(admin_url: &str, names: &[String]) -> Result<(), StackError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| StackError::Sql { what, source }
    };
    let mut connection = PgConnection::connect(admin_url).await.map_err(failed("connect"))?;
    let rows = connection
        .fetch_all("SELECT datname::text FROM pg_database")
        .await
        .map_err(failed("list its databases"))?;
    let existing: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    for name in names.iter().filter(|name| !existing.contains(name)) {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        connection
            .execute(AssertSqlSafe(statement))
            .await
            .map_err(failed(&format!("create the database {name}")))?;
    }
    connection.close().await.map_err(failed("close the connection"))
}

/// The newest version under Debian's folder, else the one on `PATH`.
fn find_programs() -> Result<PathBuf, StackError> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .collect();
    found.sort();
    if let Some((_, bin)) = found.pop() {
        return Ok(bin);
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        .ok_or(StackError::BinaryMissing { program: "initdb".to_owned(), hint: HINT })
}

/// `None` unless we are root.
async fn choose_user() -> Result<Option<String>, StackError> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !is_root {
        return Ok(None);
    }
    let known = Command::new("id").args(["-u", "postgres"]).output().await;
    if known.is_ok_and(|output| output.status.success()) {
        return Ok(Some("postgres".to_owned()));
    }
    Err(StackError::BinaryMissing {
        program: "the system user `postgres`".to_owned(),
        hint: "PostgreSQL refuses to run as root: run this as another user, or install the postgresql package, which makes that user",
    })
}

/// Where the data goes: the stack's folder, unless PostgreSQL's user can't get there (a checkout in /root).
async fn choose_home(dir: &Path, run_as: Option<&str>) -> Result<PathBuf, StackError> {
    let Some(user) = run_as else { return Ok(dir.to_owned()) };
    let reachable = Command::new("setpriv")
        .args(["--reuid", user, "--regid", user, "--init-groups", "--", "test", "-x"])
        .arg(dir)
        .status()
        .await
        .map_err(|_source| StackError::BinaryMissing {
            program: "setpriv".to_owned(),
            hint: "install util-linux",
        })?
        .success();
    if reachable {
        return Ok(dir.to_owned());
    }
    let name: String =
        dir.display().to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let home = PathBuf::from("/var/lib/firstcome").join(name.trim_matches('-'));
    fs::create_dir_all(&home).map_err(StackError::io("make", &home))?;
    // So that whoever deletes the folder finds this, too.
    let note = dir.join("run").join("postgres.home");
    fs::write(&note, home.display().to_string()).map_err(StackError::io("write", &note))?;
    Ok(home)
}

/// The password of the data folder; made when there is no data yet.
fn password(file: &Path, has_data: bool) -> Result<String, StackError> {
    match fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        _ if has_data => {
            let dir = file.parent().and_then(Path::parent).unwrap_or(file).to_owned();
            return Err(StackError::HalfWritten { dir, missing: "run/postgres.password" });
        }
        _ => {}
    }
    let password = uuid::Uuid::new_v4().simple().to_string();
    fs::write(file, &password).map_err(StackError::io("write", file))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(StackError::io("protect", file))?;
    Ok(password)
}

fn check(
    what: &'static str,
    output: std::io::Result<std::process::Output>,
    path: &Path,
) -> Result<String, StackError> {
    let output = output.map_err(StackError::io("run a program for", path))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last_line = text.lines().find(|line| line.contains("error")).or_else(|| text.lines().next_back());
    Err(StackError::Command {
        what,
        status: output.status.to_string(),
        last_line: last_line.unwrap_or("no output").to_owned(),
    })
}
