//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain_types::{CustomerId, LineNumber, OrderId, Sku, Timestamp};
use schemas::{OrderState, StepName};

use crate::filter::Clause;
use crate::servers::Servers;

/// The operator's command line of Firstcome: look, replay, explain, prove and repair.
#[derive(Debug, Parser)]
#[command(
    name = "sagactl",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 fine, 1 something found (drift, violation, refusal, no such order), 2 usage, 3 a dependency away.\n\
                  Servers are found by flags, environment, or endpoints.json in FIRSTCOME_DATA_DIR or .firstcome."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) servers: Servers,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputOptions {
    /// Print one JSON value
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show times in UTC instead of the local zone
    #[arg(long, global = true)]
    pub(crate) utc: bool,
    /// When to use colours; NO_COLOR turns them off too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sagas that are not final, longest waiting first; or their counts
    #[command(
        after_help = "Examples:\n  sagactl list --needs-operator\n  sagactl list --state COMPENSATING --idle 5m\n  \
                            sagactl list --all --count-by state"
    )]
    List(List),
    /// One order: timeline, state, what it waits for, what an operator may do now
    Show(Show),
    /// The whole system on one screen: states, lag and rate of each consumer, what is parked, who waits longest
    Top(Top),
    /// Mermaid of the saga's definition, or of the path that one order took
    Graph(Graph),
    /// The state of an order, its charge, or a product's stock at an earlier time or offset, from the log
    #[command(
        after_help = "Examples:\n  sagactl at 0199f0a1-7c3e-7cc1-b7a6-1c0d5c0a9a11 --time 2026-11-25T14:03:00Z\n  \
                            sagactl at 0199f0a1-7c3e-7cc1-b7a6-1c0d5c0a9a11 --charge --time 5m\n  \
                            sagactl at VINYL-FIRST-PRESS --offset 4711"
    )]
    At(At),
    /// What changed in an order, its charge, or a product's stock between two times, from the log
    Diff(Diff),
    /// Fold the log through this build and compare with what is stored; exit code 1 on drift
    #[command(
        after_help = "Nothing is written: there is no producer, and the databases are opened read-only. Run a new build's\n\
                            sagactl before deploying it: it names the sagas that the new build would treat differently.\n\n\
                            Examples:\n  sagactl replay 0199f0a1-7c3e-7cc1-b7a6-1c0d5c0a9a11\n  sagactl replay --all\n  \
                            sagactl replay --all --since 2026-11-25T14:00:00Z --state COMPENSATING\n  \
                            sagactl replay --all --resume gate-1.4.2.json    # Ctrl-C, and the same again: it goes on"
    )]
    Replay(Replay),
    /// Make a service's database from Kafka alone, and compare it with the live one; exit code 1 on a difference
    #[command(
        after_help = "The new database must be empty. E-mail addresses, mails that were sent and orders that were never published are\n\
                            in no topic, and stay aside.\n\n\
                            Examples:\n  sagactl rebuild --service orchestrator --into postgres://127.0.0.1/orchestrator_new\n  \
                            sagactl rebuild --service api --into postgres://127.0.0.1/api_new --lost"
    )]
    Rebuild(Rebuild),
    /// Recompute what must be true of orders, stock, money and turns, while orders flow; exit code 1 on a violation
    #[command(
        after_help = "Each database is read in one snapshot; a contradiction between two of them counts once it has outlasted\n\
                            everything that was under way when it was first seen.\n\n\
                            Examples:\n  sagactl audit\n  sagactl audit --json --sign-key audit-key.pem >report.json\n  \
                            sagactl audit --watch --every 30s --metrics 127.0.0.1:9400\n\n\
                            A key: openssl genpkey -algorithm ed25519 -out audit-key.pem"
    )]
    Audit(Audit),
    /// Withhold an order's commands until it is resumed; deadlines keep running
    Pause(Steer),
    /// Send the commands that were withheld, in order
    Resume(Steer),
    /// Send a failed or unanswered command again
    #[command(
        after_help = "Example:\n  sagactl retry --where needs_operator --reason 'provider is back' --dry-run"
    )]
    Retry(Retry),
    /// Take a failed payment step as done, settled by hand
    Skip(Skip),
    /// Give everything back, as a cancellation would
    Compensate(Steer),
    /// Records that services have set aside: look, try, redrive, discard
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// Into which folder
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// In this state; repeatable, or comma-separated
    #[arg(long, value_parser = order_state, value_delimiter = ',')]
    pub(crate) state: Vec<OrderState>,
    /// With this reason, e.g. needs_operator, sold_out, declined
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Waiting for this step's answer
    #[arg(long, value_parser = step_name)]
    pub(crate) step: Option<StepName>,
    /// Waiting for this: stock, payment, operator, resume, customer, or a timer's name
    #[arg(long, value_name = "WHAT")]
    pub(crate) waiting_for: Option<String>,
    /// Placed longer ago than this, e.g. 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older: Option<Duration>,
    /// Nothing happened to it for this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) idle: Option<Duration>,
    /// With a line of this sku
    #[arg(long)]
    pub(crate) sku: Option<Sku>,
    /// Of this customer
    #[arg(long, value_name = "UUID")]
    pub(crate) customer: Option<CustomerId>,
    /// With this version of the saga's definition
    #[arg(long, value_name = "VERSION")]
    pub(crate) definition: Option<u16>,
    /// Only those that are paused
    #[arg(long)]
    pub(crate) paused: bool,
    /// Only those that wait for an operator
    #[arg(long)]
    pub(crate) needs_operator: bool,
    /// Final ones too
    #[arg(long)]
    pub(crate) all: bool,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// Counts instead of orders
    #[arg(long, value_name = "GROUP")]
    pub(crate) count_by: Option<Group>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Group {
    State,
    Reason,
    Step,
    WaitingFor,
    Sku,
    Customer,
    Definition,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Whose database
    #[arg(long)]
    pub(crate) service: RebuiltService,
    /// An empty database of yours
    #[arg(long, value_name = "URL", env = "SAGACTL_INTO", hide_env_values = true)]
    pub(crate) into: String,
    /// The live database is lost: build up to the end of the log, and compare with nothing
    #[arg(long)]
    pub(crate) lost: bool,
    /// With --lost: the api's setting of that name, if it is not api
    #[arg(long, value_name = "NAME", requires = "lost")]
    pub(crate) consumer_group: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RebuiltService {
    Orchestrator,
    Api,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Sign the JSON report with this key: Ed25519, PKCS #8, PEM
    #[arg(long, value_name = "FILE", requires = "json", conflicts_with = "watch")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Go on until interrupted, a line (with --json a value) for each round; the turns, which need whole logs, are left out
    #[arg(long)]
    pub(crate) watch: bool,
    /// Pause between two rounds of --watch
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s", requires = "watch")]
    pub(crate) every: Duration,
    /// End --watch after so many rounds
    #[arg(long, value_name = "N", requires = "watch")]
    pub(crate) rounds: Option<u64>,
    /// Serve /metrics of --watch here
    #[arg(long, value_name = "HOST:PORT", requires = "watch")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The order's id
    pub(crate) order: OrderId,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Show it once; with --json always
    #[arg(long)]
    pub(crate) once: bool,
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) every: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The order's id; without it the definition is drawn
    pub(crate) order: Option<OrderId>,
}

#[derive(Debug, Args)]
pub(crate) struct At {
    /// An order's id, or a sku
    #[arg(value_name = "ORDER|SKU")]
    pub(crate) subject: Subject,
    /// With everything logged until then, e.g. 2026-11-25T14:03:00Z, or 5m for five minutes ago
    #[arg(long, value_parser = moment, required_unless_present = "offset", conflicts_with = "offset")]
    pub(crate) time: Option<Timestamp>,
    /// With everything up to this offset of its partition: of order-saga, for a sku of stock-commands, for a charge of
    /// payment-commands
    #[arg(long)]
    pub(crate) offset: Option<i64>,
    /// The order's charge instead of the order
    #[arg(long)]
    pub(crate) charge: bool,
}

/// What is looked at.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Order(OrderId),
    Sku(Sku),
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let order = text.parse().map(Self::Order);
        order
            .or_else(|_no_id| text.parse().map(Self::Sku))
            .map_err(|_neither| "it is no order's id and no sku".to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// An order's id, or a sku
    #[arg(value_name = "ORDER|SKU")]
    pub(crate) subject: Subject,
    /// The earlier time
    #[arg(long, value_parser = moment)]
    pub(crate) from: Timestamp,
    /// The later time
    #[arg(long, value_parser = moment)]
    pub(crate) to: Timestamp,
    /// The order's charge instead of the order
    #[arg(long)]
    pub(crate) charge: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false).args(["order", "all"]))]
pub(crate) struct Replay {
    /// The order's id
    pub(crate) order: Option<OrderId>,
    /// Every order
    #[arg(long)]
    pub(crate) all: bool,
    /// Only orders placed since then
    #[arg(long, value_parser = moment, requires = "all")]
    pub(crate) since: Option<Timestamp>,
    /// Only orders that are stored in this state; repeatable, or comma-separated
    #[arg(long, value_parser = order_state, value_delimiter = ',', requires = "all")]
    pub(crate) state: Vec<OrderState>,
    /// Keep in this file what is done, share by share of the orders: interrupted, the same command goes on with what is
    /// missing. Another build, another log or other orders are refused. The file is removed with the complete report
    #[arg(long, value_name = "FILE", requires = "all")]
    pub(crate) resume: Option<PathBuf>,
    /// Describe at most this many drifts; all are counted
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    /// Memory for sagas, MiB; the log is read several times if they do not fit
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) memory: u64,
}

/// What every command that writes is told.
#[derive(Debug, Args)]
pub(crate) struct Write {
    /// Why; recorded on the topic for ever
    #[arg(long, value_parser = words)]
    pub(crate) reason: String,
    /// Who; recorded too
    #[arg(long, env = "SAGACTL_OPERATOR", value_parser = words)]
    pub(crate) operator: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false).args(["order", "filter"]))]
pub(crate) struct Steer {
    /// The order's id
    pub(crate) order: Option<OrderId>,
    /// Every order for which this holds: state=S, reason=R, step=S, waiting_for=W, sku=SKU, customer=UUID, older=5m, idle=5m,
    /// needs_operator, paused; repeatable, all must hold
    #[arg(long = "where", value_name = "CLAUSE")]
    pub(crate) filter: Vec<Clause>,
    #[command(flatten)]
    pub(crate) write: Write,
    /// At most this many orders a second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// What is parked, by key
    List(Parked),
    /// The parked records themselves
    Show(Parked),
    /// What a redrive would do now, record by record: acts, stale, refused, still_poison
    Preview(Parked),
    /// Apply the parked records in their order
    #[command(
        after_help = "Examples:\n  sagactl dead-letters redrive order-saga/1@4711 --reason 'fixed in 1.4.2'\n  \
                            sagactl dead-letters redrive --all --cause malformed --reason 'fixed in 1.4.2' --rate 200 --yes\n  \
                            sagactl dead-letters redrive order-saga/1@4711 --value fixed.json --reason 'wrong customer id'\n\n\
                            Many at once: write the records down, correct their values, apply them all, each key in its order:\n  \
                            sagactl dead-letters show --json --limit 100000 |\n    \
                            jq -c '.[] | select(.cause == \"malformed\") | {record: \"\\(.topic)/\\(.partition)@\\(.offset)\", value}' >fixed.jsonl\n  \
                            sagactl dead-letters redrive --all --values fixed.jsonl --reason 'a cut-off record'"
    )]
    Redrive(Redrive),
    /// Drop the parked records for good
    Discard(Settle),
}

#[derive(Debug, Args)]
pub(crate) struct Parked {
    /// A parking key (an order's id, a request's id, a sku), or TOPIC/PARTITION@OFFSET
    pub(crate) which: Option<String>,
    /// Only of this consumer group, e.g. order-orchestrator
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Only with this cause: malformed, unknown, failed, behind, recorded
    #[arg(long)]
    pub(crate) cause: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Settle {
    /// A parking key, or TOPIC/PARTITION@OFFSET
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) which: Option<String>,
    /// Every parked record (of --group, with --cause)
    #[arg(long)]
    pub(crate) all: bool,
    /// Only of this consumer group
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Only keys whose first record has this cause
    #[arg(long)]
    pub(crate) cause: Option<String>,
    #[command(flatten)]
    pub(crate) write: Write,
    /// At most this many records a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    pub(crate) settle: Settle,
    /// Apply the value in this file instead of the record's own; recorded as corrected
    #[arg(long, value_name = "FILE", requires = "which")]
    pub(crate) value: Option<PathBuf>,
    /// Apply the values in this file instead of the records' own: a line {"record": "TOPIC/PARTITION@OFFSET", "value": ..} for
    /// each. Records of the same keys that it does not name are applied as they are, in their order
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) values: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) steer: Steer,
    /// Which step; without it all that failed
    #[arg(long, value_parser = step_name)]
    pub(crate) step: Option<StepName>,
    /// Which line of the order, from 0
    #[arg(long, value_parser = line_number, requires = "step")]
    pub(crate) line: Option<LineNumber>,
}

#[derive(Debug, Args)]
pub(crate) struct Skip {
    #[command(flatten)]
    pub(crate) steer: Steer,
    /// Which step; without it the payment step that failed
    #[arg(long, value_parser = step_name)]
    pub(crate) step: Option<StepName>,
    /// What settled it by hand, e.g. the bank's reference
    #[arg(long, value_name = "REFERENCE", value_parser = words)]
    pub(crate) settled_by: Option<String>,
}

fn words(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    if text.len() > 1_000 {
        return Err("at most 1,000 bytes are kept".to_owned());
    }
    Ok(text.to_owned())
}

fn line_number(text: &str) -> Result<LineNumber, String> {
    text.parse().map(LineNumber).map_err(|_no_number| "a line is a number from 0".to_owned())
}

pub(crate) fn order_state(text: &str) -> Result<OrderState, String> {
    let wanted = text.to_uppercase();
    OrderState::ALL
        .into_iter()
        .find(|state| state.as_str() == wanted)
        .ok_or_else(|| format!("states are {}", OrderState::ALL.map(OrderState::as_str).join(", ")))
}

/// The steps, as operators name them.
pub(crate) const STEP_NAMES: [(&str, StepName); 7] = [
    ("reserve", StepName::Reserve),
    ("charge", StepName::Charge),
    ("confirm", StepName::Confirm),
    ("release", StepName::Release),
    ("close", StepName::Close),
    ("refund", StepName::Refund),
    ("restock", StepName::Restock),
];

pub(crate) fn step_name(text: &str) -> Result<StepName, String> {
    let found = STEP_NAMES.into_iter().find(|(name, _)| *name == text);
    found
        .map(|(_, step)| step)
        .ok_or_else(|| format!("steps are {}", STEP_NAMES.map(|(name, _)| name).join(", ")))
}

/// `90s`, `5m`, `2h`, `3d`, `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let number: u64 =
        digits.parse().map_err(|_no_number| "a duration is a number and ms, s, m, h or d".to_owned())?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let millis = millis.ok_or_else(|| "a duration is a number and ms, s, m, h or d".to_owned())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

/// RFC 3339, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        return Ok(messaging::wall_clock().minus(ago));
    }
    text.parse().map_err(|_no_time| {
        "a time is RFC 3339, e.g. 2026-11-25T14:03:00Z, or how long ago, e.g. 5m".to_owned()
    })
}
