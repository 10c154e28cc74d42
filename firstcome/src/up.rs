//! `firstcome up`: servers, topics, services, catalogue, and then what to open.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::{Jit, Part, Server, Stack, StackError, StackOptions, topics};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::catalogue;
use crate::cli::Up;
use crate::client;
use crate::console::Console;
use crate::detach;
use crate::endpoints::Endpoints;
use crate::home::Home;
use crate::keys;
use crate::services::{self, Replica, Service};
use crate::supervisor::{self, Processes};

const DEFAULT_PORT: u16 = 8080;
/// How long a killed run may go on holding its port.
const LEFT_BEHIND: Duration = Duration::from_secs(10);
const READY_WITHIN: Duration = Duration::from_secs(90);
/// A log larger than this is put aside when the system starts.
const LOG_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Runs until a signal comes, or returns once everything is ready (`--detach`).
pub(crate) async fn run(options: Up) -> anyhow::Result<ExitCode> {
    let home = options.data_dir.home();
    if let Some(pid) = home.owner() {
        anyhow::bail!("{}", already_running(&home, pid));
    }
    home.make()?;
    if options.detach {
        return detach::run(&home).await;
    }
    init_logs(&home)?;
    let shutdown = shutdown_signal()?;
    let stopping = shutdown.clone();
    // Ctrl-C also ends a start that is under way; what was started ends with it.
    let started = tokio::select! {
        started = start(&options, &home, &shutdown) => started,
        () = stopping.cancelled() => return Ok(ExitCode::FAILURE),
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => return Err(worded(error, &home)),
    };
    running.console.say(&welcome(&home, &running.endpoints)?);
    home.ready().write(std::process::id()).context("cannot say that everything is ready")?;
    shutdown.cancelled().await;
    running.stop(&home).await?;
    Ok(ExitCode::SUCCESS)
}

struct Running {
    console: Console,
    stack: Arc<Stack>,
    endpoints: Endpoints,
    services: tokio::task::JoinSet<()>,
    servers: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Services first, so that they can finish what they have begun; `shutdown` was cancelled already.
    async fn stop(mut self, home: &Home) -> anyhow::Result<()> {
        home.ready().remove();
        self.console.step("services", "stopping");
        while self.services.join_next().await.is_some() {}
        self.console.done("services", "stopped");
        self.servers.await.context("the watch over the servers panicked")?;
        self.console.step("servers", "stopping");
        let stack = Arc::into_inner(self.stack).context("the servers are still in use")?;
        stack.stop().await?;
        self.console.done("servers", "stopped");
        fs::remove_file(home.endpoints()).ok();
        Ok(())
    }
}

async fn start(options: &Up, home: &Home, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let console = Console::new();
    console.say(&format!("Firstcome, data in {}", home.dir().display()));
    let port = api_port(options.port, home).await?;
    let processes = processes(options)?;
    keys::ensure(home)?;
    let mut stack = stack_options(options, home, &console)?;
    stack.other_ports = vec![port];
    let stack = Arc::new(Stack::start(stack).await?);

    console.step("topics", "making");
    let partitions =
        crate::topics::wanted(options.partitions, &stack.cluster(), services::partitions(options)).await?;
    topics::ensure(stack.cluster(), partitions).await?;
    console.done("topics", &ready_topics(partitions, options));

    let replicas = services::plan(home, &stack, port, options)?;
    let endpoints = endpoints(&stack, &replicas, options);
    let services = supervisor::start(home, &replicas, &processes, shutdown)?;
    let servers = tokio::spawn(supervisor::keep_servers(Arc::clone(&stack), shutdown.clone()));
    wait_ready(&replicas, &console, home, &processes).await?;
    // Before the catalogue: whoever finds the file finds a system that works.
    endpoints.write(home)?;
    if !options.no_catalogue {
        console.step("catalogue", "registering");
        let outcome = catalogue::register(endpoints.first_api()?, &keys::signer(home)?).await?;
        console.done("catalogue", &outcome);
    }
    Ok(Running { console, stack, endpoints, services, servers })
}

/// What a start says about topics with so many partitions.
fn ready_topics(partitions: i32, options: &Up) -> String {
    let standing_by = services::partitions(options) > partitions;
    let what =
        if partitions == 1 { "1 partition each".to_owned() } else { format!("{partitions} partitions each") };
    if standing_by { format!("{what}: replicas beyond that stand by") } else { what }
}

/// The port that was asked for, or the default one, if it is free; a free one for 0.
///
/// The services of a run that was killed end a moment after it: its `endpoints.json` is still there.
async fn api_port(asked: Option<u16>, home: &Home) -> anyhow::Result<u16> {
    let port = match asked.unwrap_or(DEFAULT_PORT) {
        0 => return Ok(local_stack::free_port()?),
        port => port,
    };
    let deadline = Instant::now() + if home.endpoints().exists() { LEFT_BEHIND } else { Duration::ZERO };
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_free) => return Ok(port),
            Err(_in_use) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("port {port} for the api can't be used; choose another one with --port")
                });
            }
        }
    }
}

fn processes(options: &Up) -> anyhow::Result<Processes> {
    if !options.separate {
        return Ok(Processes::One);
    }
    let exe = std::env::current_exe().context("cannot find this program's folder")?;
    let folder = exe.parent().context("this program is in no folder")?;
    for service in Service::ALL {
        let binary = folder.join(service.name());
        anyhow::ensure!(
            binary.is_file(),
            "{} is missing: build it first, or leave --separate out",
            binary.display()
        );
    }
    Ok(Processes::Separate(folder.to_owned()))
}

fn stack_options(options: &Up, home: &Home, console: &Console) -> anyhow::Result<StackOptions> {
    let mut stack = StackOptions::new(home.dir());
    let server = |yours: &Option<String>| yours.clone().map_or(Server::OWN, Server::Yours);
    stack.kafka = server(&options.kafka);
    stack.kafka_security = options.kafka_security.read()?;
    stack.postgres = server(&options.postgres);
    stack.redis = server(&options.redis);
    stack.databases = Service::ALL.into_iter().flat_map(|service| service.databases(options)).collect();
    if options.quick {
        stack.kafka_jit = Jit::Quick;
        stack.kafka_heap_mib = 256;
    }
    if let Some(heap) = options.kafka_heap {
        stack.kafka_heap_mib = heap;
    }
    let console = console.clone();
    stack.progress = Arc::new(move |part: Part, step: &str| match step {
        "ready" | "yours answers" => console.done(&part.to_string(), step),
        step => console.step(&part.to_string(), step),
    });
    Ok(stack)
}

fn endpoints(stack: &Stack, replicas: &[Replica], options: &Up) -> Endpoints {
    let urls = |service: Service| {
        let names = service.databases(options);
        names.iter().map(|name| stack.postgres_url(name)).collect()
    };
    let listening = replicas.iter().filter_map(|replica| replica.listen.as_ref());
    Endpoints {
        api: listening.map(|address| format!("http://{address}")).collect(),
        kafka: stack.kafka(),
        kafka_security: stack.cluster().security().clone(),
        redis: stack.redis_url(),
        postgres: Service::ALL
            .into_iter()
            .map(|service| (service.database().to_owned(), urls(service)))
            .collect(),
        metrics: replicas
            .iter()
            .map(|replica| (replica.name.clone(), replica.metrics_url()))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// Waits until every service says that it can do its work.
async fn wait_ready(
    replicas: &[Replica],
    console: &Console,
    home: &Home,
    processes: &Processes,
) -> anyhow::Result<()> {
    let client = client::new()?;
    let began = Instant::now();
    for replica in replicas {
        console.step(&replica.name, "starting");
    }
    for replica in replicas {
        loop {
            let Err(missing) = client::ready(&client, &replica.metrics_url()).await else { break };
            if began.elapsed() > READY_WITHIN {
                let log = match processes {
                    Processes::One => home.log("services"),
                    Processes::Separate(_) => home.log(&replica.name),
                };
                anyhow::bail!(
                    "{} was not ready after {} s ({missing}); its log is {}, and ends with:\n{}",
                    replica.name,
                    READY_WITHIN.as_secs(),
                    log.display(),
                    local_stack::last_lines(&log)
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        console.done(&replica.name, "ready");
    }
    Ok(())
}

fn already_running(home: &Home, pid: u32) -> String {
    let api = Endpoints::read(home).ok().and_then(|endpoints| endpoints.api.first().cloned());
    let what = api.map_or_else(|| "it is still starting".to_owned(), |url| format!("its api is {url}"));
    format!("already running (process {pid}, {what}); see `firstcome status`, stop it with `firstcome down`")
}

/// The folder's lock says the same as [`already_running`], if two started at the same moment.
fn worded(error: anyhow::Error, home: &Home) -> anyhow::Error {
    match error.downcast_ref::<StackError>() {
        Some(StackError::Locked { pid, .. }) => {
            anyhow::anyhow!("{}", already_running(home, pid.unwrap_or_default()))
        }
        _ => error,
    }
}

/// Cancelled by Ctrl-C, SIGTERM, and the end of the terminal.
fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("signals can't be handled")?;
        let token = token.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                token.cancel();
            }
        });
    }
    Ok(token)
}

/// Logs of this process and of services that run in it go to `log/services.log`.
fn init_logs(home: &Home) -> anyhow::Result<()> {
    let path = home.log("services");
    if fs::metadata(&path).is_ok_and(|file| file.len() > LOG_LIMIT_BYTES) {
        fs::rename(&path, path.with_extension("log.old")).ok();
    }
    let open = || -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(&path) };
    let file = open().with_context(|| format!("cannot write {}", path.display()))?;
    let filter = service_kit::log_filter("RUST_LOG", service_kit::DEFAULT_LOGS);
    let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    logs.with_ansi(false).with_writer(Arc::new(file)).finish().with(filter).init();
    Ok(())
}

/// What to open, and three things to try.
fn welcome(home: &Home, endpoints: &Endpoints) -> anyhow::Result<String> {
    let api = endpoints.first_api()?;
    let exe = std::env::current_exe().ok();
    let here = std::env::current_dir().unwrap_or_default();
    let shown = |path: &std::path::Path| path.strip_prefix(&here).unwrap_or(path).display().to_string();
    let firstcome = exe.map_or_else(|| "firstcome".to_owned(), |path| shown(&path));
    let data = shown(home.dir());
    let data_dir = if data == ".firstcome" { String::new() } else { format!(" --data-dir {data}") };
    let customer = uuid::Uuid::new_v4();
    Ok(format!(
        "
Firstcome is up.

  API          {api}/v1/products
  health       {api}/readyz
  endpoints    {data}/endpoints.json   (Kafka, PostgreSQL, Redis, metrics)
  logs         {data}/log/
  mailbox      {data}/mail/   (mails to customers whose token has an address)

Try it:

  TOKEN=$({firstcome} token{data_dir} --customer {customer})
  curl -s '{api}/v1/products'
  curl -si '{api}/v1/orders' -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{order}'
  curl -s '{api}/v1/orders' -H \"Authorization: Bearer $TOKEN\"

  {firstcome} demo{data_dir}      a flash sale: 1,000 buyers for 100 units
  {firstcome} down{data_dir}      stops everything, keeps the data
",
        order = catalogue::FIRST_ORDER,
    ))
}
