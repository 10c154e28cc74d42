//! The three servers together: started, stopped, killed and started again, each on its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kafka_cluster::{Cluster, Security};
use tokio::sync::Mutex;

use crate::address::{with_database, without_password};
use crate::folder::{end_leftover, make_dir, pid_file, tail, take_lock};
use crate::kafka::{Kafka, Seat};
use crate::ports::Ports;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::{
    GuardedChild, GuardedCommand, Part, PidFile, Progress, Server, Signal, StackError, StackOptions,
};
use crate::{folder, kafka, postgres, redis};

const POLL: Duration = Duration::from_millis(50);
const KAFKA_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long a part may take to end when asked to.
const GRACE: Duration = Duration::from_secs(20);

/// Kafka, PostgreSQL and Redis, ready for use. They end when this is dropped, and when this process dies in any way.
#[derive(Debug)]
pub struct Stack {
    dir: PathBuf,
    kafka: Managed<Kafka>,
    postgres: Managed<Postgres>,
    redis: Managed<Redis>,
    kafka_security: Security,
    start_deadline: Duration,
    /// Held as long as the stack lives; the system releases it when the process dies.
    _lock: File,
}

#[derive(Debug)]
enum Managed<T> {
    Own { server: T, child: Mutex<Option<GuardedChild>> },
    Yours(String),
}

impl<T> Managed<T> {
    fn own(server: T) -> Self {
        Self::Own { server, child: Mutex::new(None) }
    }
}

impl Stack {
    /// Starts what `options` ask for, all parts at once, and waits until each answers. Data of an earlier start is used again; what a crash left behind
    /// (processes, lock files, folders half made) is cleared away first.
    ///
    /// # Errors
    /// One sentence each, see [`StackError`]. What was already started is stopped again.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let dir = &make_dir(&options.dir)?;
        let lock = take_lock(dir).await?;
        for part in Part::ALL {
            end_leftover(dir, part).await?;
        }
        let asked = |server: &Server| match server {
            Server::Own { port } => *port,
            Server::Yours(_) => None,
        };
        let others = &options.other_ports;
        let (kafka, postgres, redis) =
            (asked(&options.kafka), asked(&options.postgres), asked(&options.redis));
        let ports = Ports::choose(dir, others, kafka, postgres, redis)?;
        let progress = &options.progress;
        let kafka = async {
            Ok::<_, StackError>(match &options.kafka {
                Server::Yours(address) => Managed::Yours(address.clone()),
                Server::Own { .. } => Managed::own(
                    Kafka::prepare(dir, Seat::alone(ports.kafka, ports.kafka_controller), &options).await?,
                ),
            })
        };
        let postgres = async {
            Ok::<_, StackError>(match &options.postgres {
                Server::Yours(url) => Managed::Yours(url.clone()),
                Server::Own { .. } => Managed::own(Postgres::prepare(dir, ports.postgres, progress).await?),
            })
        };
        let (kafka, postgres) = tokio::try_join!(Box::pin(kafka), Box::pin(postgres))?;
        let redis = match &options.redis {
            Server::Yours(url) => Managed::Yours(url.clone()),
            Server::Own { .. } => Managed::own(Redis::prepare(dir, ports.redis)?),
        };
        let dir = dir.clone();
        let stack = Self {
            dir,
            kafka,
            postgres,
            redis,
            kafka_security: options.kafka_security.clone(),
            start_deadline: options.start_deadline,
            _lock: lock,
        };
        Box::pin(stack.start_all(progress, &options.databases)).await?;
        Ok(stack)
    }

    async fn start_all(&self, progress: &Progress, databases: &[String]) -> Result<(), StackError> {
        let kafka = self.start_with(Part::Kafka, progress);
        let redis = self.start_with(Part::Redis, progress);
        let postgres = async {
            self.start_with(Part::Postgres, progress).await?;
            postgres::create_databases(&self.postgres_url("postgres"), databases).await
        };
        tokio::try_join!(kafka, postgres, redis).map(|_| ())
    }

    async fn start_with(&self, part: Part, progress: &Progress) -> Result<(), StackError> {
        if self.is_own(part) {
            progress(part, "starting");
            self.start_part(part).await?;
            progress(part, "ready");
            return Ok(());
        }
        progress(part, "looking for yours");
        let began = Instant::now();
        loop {
            match self.answers(part).await {
                Ok(()) => break,
                Err(_) if began.elapsed() < Duration::from_secs(10) => tokio::time::sleep(POLL).await,
                Err(status) => {
                    let address = without_password(&self.address(part));
                    return Err(StackError::YoursUnreachable { part, address, status });
                }
            }
        }
        progress(part, "yours answers");
        Ok(())
    }

    /// The process that owns the folder's stack right now, if any; 0 when it did not say who it is. A folder whose owner died has none.
    #[must_use]
    pub fn owner_of(dir: &Path) -> Option<u32> {
        folder::owner(dir)
    }

    /// The process of a part in that folder, by its pid file; for those who only look on.
    #[must_use]
    pub fn pid_in(dir: &Path, part: Part) -> Option<u32> {
        pid_file(dir, part).alive()
    }

    /// The stack's data folder, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bootstrap address, `HOST:PORT`.
    #[must_use]
    pub fn kafka(&self) -> String {
        match &self.kafka {
            Managed::Own { server, .. } => server.address(),
            Managed::Yours(address) => address.clone(),
        }
    }

    /// The same, with how it lets us in.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(&self.kafka(), &self.kafka_security)
    }

    /// How one of Kafka's own programs (`org.apache.kafka.tools.AclCommand`) is called, up to its arguments. `None`: the Kafka is
    /// yours.
    #[must_use]
    pub fn kafka_tool(&self, class: &str) -> Option<Vec<String>> {
        match &self.kafka {
            Managed::Own { server, .. } => Some(server.tool(class)),
            Managed::Yours(_) => None,
        }
    }

    /// URL of a database of that name, with its password; the database need not exist.
    #[must_use]
    pub fn postgres_url(&self, database: &str) -> String {
        match &self.postgres {
            Managed::Own { server, .. } => server.url(database),
            Managed::Yours(url) => with_database(url, database),
        }
    }

    /// URL of the Redis server.
    #[must_use]
    pub fn redis_url(&self) -> String {
        match &self.redis {
            Managed::Own { server, .. } => server.url(),
            Managed::Yours(url) => url.clone(),
        }
    }

    /// Whether this stack runs the part itself.
    #[must_use]
    pub fn is_own(&self, part: Part) -> bool {
        self.child(part).is_some()
    }

    /// The part's process, while it runs.
    pub async fn pid(&self, part: Part) -> Option<u32> {
        let mut child = self.child(part)?.lock().await;
        let child = child.as_mut()?;
        let ended = child.try_wait().ok()?.is_some();
        (!ended).then(|| child.pid())
    }

    /// Starts a part that was stopped or killed, with the same port and data, and waits until it answers. Running already: nothing happens.
    ///
    /// # Errors
    /// When it ends at once or does not answer in time.
    pub async fn start_part(&self, part: Part) -> Result<(), StackError> {
        let slot = self.child(part).ok_or(StackError::NotOurs { part })?;
        let mut slot = slot.lock().await;
        if let Some(child) = slot.as_mut()
            && child.try_wait().map_err(StackError::io("look after", self.log(part)))?.is_none()
        {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let from = fs::metadata(self.log(part)).map_or(0, |file| file.len());
            let command = self.command(part).ok_or(StackError::NotOurs { part })?;
            let child =
                command.spawn().map_err(StackError::io("start a process that logs to", self.log(part)))?;
            self.pid_file(part)
                .write(child.pid())
                .map_err(StackError::io("write", self.pid_file(part).path()))?;
            let child = slot.insert(child);
            match self.wait_ready(part, child, from, began).await {
                Err(StackError::Died { .. }) if self.may_try_again(part, from, began) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn wait_ready(
        &self,
        part: Part,
        child: &mut GuardedChild,
        log_from: u64,
        began: Instant,
    ) -> Result<(), StackError> {
        loop {
            let answer = self.answers(part).await;
            // Asked second: what answers while our child is dead is somebody else.
            if let Some(status) = child.try_wait().map_err(StackError::io("look after", self.log(part)))? {
                return Err(self.why_it_died(part, status, log_from));
            }
            let last_status = match answer {
                Ok(()) => return Ok(()),
                Err(status) => status,
            };
            if began.elapsed() >= self.start_deadline {
                let (waited, log) = (began.elapsed(), self.log(part));
                return Err(StackError::NotReady { part, waited, last_status, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn why_it_died(&self, part: Part, status: std::process::ExitStatus, log_from: u64) -> StackError {
        let text = tail(&self.log(part), log_from);
        let port = self.port(part).unwrap_or_default();
        if status.code() == Some(127) && part == Part::Redis {
            let hint = "install redis-server, or use your own with `--redis URL`";
            return StackError::BinaryMissing { program: "redis-server".to_owned(), hint };
        }
        if text.contains("Address already in use") {
            return StackError::PortInUse { part, port };
        }
        let telling =
            |line: &&str| ["FATAL", "ERROR", "Fatal", "rror:"].iter().any(|word| line.contains(word));
        let line =
            text.lines().find(telling).or_else(|| text.lines().next_back()).unwrap_or("it said nothing");
        StackError::Died {
            part,
            status: status.to_string(),
            last_line: line.trim().to_owned(),
            log: self.log(part),
        }
    }

    /// After a `SIGKILL` PostgreSQL's back ends need a moment to notice; until then a new server refuses to start.
    fn may_try_again(&self, part: Part, log_from: u64, began: Instant) -> bool {
        let text = tail(&self.log(part), log_from);
        began.elapsed() < self.start_deadline / 2
            && part == Part::Postgres
            && (text.contains("shared memory block") || text.contains("postmaster.pid"))
    }

    /// Ends a part in good order (PostgreSQL: fast shutdown), or by force after 20 s. Its data stays.
    ///
    /// # Errors
    /// When the part isn't ours or the system can't say whether it lives.
    pub async fn stop_part(&self, part: Part) -> Result<(), StackError> {
        let signal = match part {
            Part::Kafka | Part::Redis => Signal::Terminate,
            Part::Postgres => Signal::Interrupt,
        };
        self.end_part(part, signal, GRACE).await
    }

    /// Ends a part with `SIGKILL`: nothing is flushed, no connection is closed in good order.
    ///
    /// # Errors
    /// As [`Stack::stop_part`].
    pub async fn kill_part(&self, part: Part) -> Result<(), StackError> {
        self.end_part(part, Signal::Kill, GRACE).await
    }

    async fn end_part(&self, part: Part, signal: Signal, grace: Duration) -> Result<(), StackError> {
        let mut slot = self.child(part).ok_or(StackError::NotOurs { part })?.lock().await;
        if let Some(child) = slot.as_mut() {
            child
                .end(signal, grace)
                .await
                .map_err(StackError::io("end the process that logs to", self.log(part)))?;
        }
        *slot = None;
        self.pid_file(part).remove();
        Ok(())
    }

    /// Sends a signal to a running part, e.g. [`Signal::Stop`] to freeze it and [`Signal::Continue`] to thaw it.
    ///
    /// # Errors
    /// As [`Stack::stop_part`].
    pub async fn signal_part(&self, part: Part, signal: Signal) -> Result<(), StackError> {
        let mut slot = self.child(part).ok_or(StackError::NotOurs { part })?.lock().await;
        match slot.as_mut() {
            Some(child) => child
                .signal(signal)
                .map_err(StackError::io("signal the process that logs to", self.log(part))),
            None => Ok(()),
        }
    }

    /// Ends all own parts in good order. The data stays, and another stack may take the folder over.
    ///
    /// # Errors
    /// As [`Stack::stop_part`]; the first one, after all were tried.
    pub async fn stop(self) -> Result<(), StackError> {
        let stop = async |part| if self.is_own(part) { self.stop_part(part).await } else { Ok(()) };
        let (kafka, postgres, redis) =
            tokio::join!(stop(Part::Kafka), stop(Part::Postgres), stop(Part::Redis));
        kafka.and(postgres).and(redis)
    }

    /// Whether the part answers; else why not.
    ///
    /// # Errors
    /// What it said, or that it said nothing.
    pub async fn answers(&self, part: Part) -> Result<(), String> {
        probe(part, &self.address(part), &self.kafka_security).await
    }

    /// The part's log file.
    #[must_use]
    pub fn log(&self, part: Part) -> PathBuf {
        self.dir.join("log").join(format!("{}.log", part.file_name()))
    }

    fn address(&self, part: Part) -> String {
        match part {
            Part::Kafka => self.kafka(),
            Part::Postgres => self.postgres_url("postgres"),
            Part::Redis => self.redis_url(),
        }
    }

    fn child(&self, part: Part) -> Option<&Mutex<Option<GuardedChild>>> {
        match part {
            Part::Kafka => self.kafka.child(),
            Part::Postgres => self.postgres.child(),
            Part::Redis => self.redis.child(),
        }
    }

    fn command(&self, part: Part) -> Option<GuardedCommand> {
        let log = self.log(part);
        match part {
            Part::Kafka => self.kafka.server().map(|server| server.command(&log)),
            Part::Postgres => self.postgres.server().map(|server| server.command(&log)),
            Part::Redis => self.redis.server().map(|server| server.command(&log)),
        }
    }

    fn port(&self, part: Part) -> Option<u16> {
        match part {
            Part::Kafka => self.kafka.server().map(|server| server.port),
            Part::Postgres => self.postgres.server().map(|server| server.port),
            Part::Redis => self.redis.server().map(|server| server.port),
        }
    }

    fn pid_file(&self, part: Part) -> PidFile {
        pid_file(&self.dir, part)
    }
}

impl<T> Managed<T> {
    fn child(&self) -> Option<&Mutex<Option<GuardedChild>>> {
        match self {
            Self::Own { child, .. } => Some(child),
            Self::Yours(_) => None,
        }
    }

    fn server(&self) -> Option<&T> {
        match self {
            Self::Own { server, .. } => Some(server),
            Self::Yours(_) => None,
        }
    }
}

/// Whether a server of that kind answers at that address (Kafka: `HOST:PORT`, else a URL); else why not. Takes 5 s at most.
///
/// # Errors
/// What it said, or that it said nothing.
pub async fn probe(part: Part, address: &str, kafka_security: &Security) -> Result<(), String> {
    match part {
        Part::Kafka => kafka::answers(Cluster::new(address, kafka_security), KAFKA_ANSWERS_WITHIN).await,
        Part::Postgres => postgres::answers(address).await,
        Part::Redis => redis::answers(address).await,
    }
}
