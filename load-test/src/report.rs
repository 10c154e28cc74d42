//! Every scenario in turn against the running system, and what it brought as a folder: `report.md`, `report.json`, and
//! plots as SVG. Each scenario ends with the audit; without a clean one its figures count for nothing, and say so.

mod plot;
mod published;
mod scenarios;
mod summary;

use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::machine::Machine;
use crate::out::say;
use crate::rivals::{self, Rivals};
use crate::sagas::paced::Rates;
use crate::{bare, http, locks, sagas, sale, steps, stored, users};
use plot::{Line, Plot};
use published::Published;
use scenarios::Sizes;
use summary::Summary;

/// `load-test report`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Folder for the report; what it holds of the same names is replaced.
    #[arg(long, default_value = "target/report")]
    pub(crate) into: PathBuf,
    /// Small scenarios: sooner done, and figures that move more.
    #[arg(long)]
    pub(crate) short: bool,
    /// Orders that are stored for the section about many of them: 1,000,000, or 50,000 of the small ones. 10,000,000 take an hour
    /// and a half more (computed), and 63 GB of disk.
    #[arg(long)]
    pub(crate) stored: Option<usize>,
    /// Decides who orders what.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// One scenario's part.
#[derive(Serialize)]
struct Section {
    title: String,
    took_s: f64,
    /// Everything that was seen.
    figures: Value,
    #[serde(skip)]
    text: String,
    audit: Option<Audit>,
    /// Whether what must hold does, the audit too.
    holds: bool,
}

/// The whole.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    /// Seconds since 1970.
    at: u64,
    is_short: bool,
    seed: u64,
    summary: Summary,
    published: Published,
    sections: Vec<Section>,
    #[serde(skip)]
    into: PathBuf,
    #[serde(skip)]
    plots: Vec<(String, &'static str)>,
}

/// Runs everything; whether all of it holds.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    std::fs::create_dir_all(&options.into)
        .with_context(|| format!("cannot make {}", options.into.display()))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut report = Report {
        machine: Machine::here(),
        at: since.as_secs(),
        is_short: options.short,
        seed: options.seed,
        summary: Summary::default(),
        published: Published::default(),
        sections: Vec::new(),
        into: options.into.clone(),
        plots: Vec::new(),
    };
    let sizes = Sizes::new(options.short, options.seed, options.stored);
    report.scenarios(endpoints, &sizes).await?;
    report.write()?;
    say(format_args!("{}\n{}", report.summary, report.published))?;
    say(format_args!("report: {}", options.into.join("report.md").display()))?;
    Ok(report.sections.iter().all(|section| section.holds))
}

impl Report {
    async fn scenarios(&mut self, endpoints: &Endpoints, sizes: &Sizes) -> anyhow::Result<()> {
        let is_right = |outcome: &sagas::Outcome| outcome.wrong == 0;
        // A young JVM costs twice as much a record. What is wrong here is found by the audits that follow.
        eprintln!("Warming up ...");
        sagas::closed(endpoints, &sizes.warm_up).await?;
        let uniform = sagas::closed(endpoints, &sizes.uniform);
        let uniform = self.section(endpoints, "Complete sagas, uniform", uniform, is_right).await;
        let hot = sagas::closed(endpoints, &sizes.hot);
        let hot = self.section(endpoints, "Complete sagas, one hot product", hot, is_right).await;
        let idle = sagas::idle(endpoints, &sizes.idle);
        let idle = self.section(endpoints, "One order at a time", idle, is_right).await;
        self.summary.sagas(uniform.as_ref(), hot.as_ref(), idle.as_ref());
        let paced = sagas::paced::measure(endpoints, &sizes.paced);
        let title = "What a saga costs at one rate after the other";
        if let Some(rates) = self.section(endpoints, title, paced, Rates::is_right).await {
            self.summary.paced(&rates);
            cpu(&rates).write(&self.into.join("cpu.svg"))?;
            self.plots.push(("cpu.svg".to_owned(), "CPU per saga against rate"));
        }
        let bare = bare::measure(endpoints, &sizes.bare);
        let bare = self.section(endpoints, "Bare loops: the floor", bare, bare::Bare::is_right).await;
        self.summary.bare(bare.as_ref());
        for (number, (title, http)) in sizes.http.iter().enumerate() {
            self.over_http(endpoints, number + 1, title, http).await?;
        }
        let burst = http::alone(endpoints, &sizes.burst);
        let title = "Ten thousand orders in ten seconds";
        if let Some(burst) = self.section(endpoints, title, burst, http::Outcome::is_right).await {
            self.published.burst(&burst);
        }
        let came = users::measure(endpoints, &sizes.some_users);
        if let Some(came) = self.section(endpoints, "Forty users", came, users::Outcome::is_right).await {
            self.published.some_users(&came);
        }
        let came = users::measure(endpoints, &sizes.many_users);
        if let Some(came) = self.section(endpoints, "Two hundred users", came, users::Outcome::is_right).await
        {
            self.published.many_users(&came);
        }
        let climbed = steps::measure(endpoints, &sizes.steps);
        let ends_well = |all: &Vec<steps::Steps>| {
            all.iter().flat_map(|steps| &steps.steps).all(|step| step.seen.wrong == 0)
        };
        let shown = async { climbed.await.map(Climbed) };
        let climbed = self.section(endpoints, "Steps to saturation", shown, |all| ends_well(&all.0)).await;
        if let Some(Climbed(climbed)) = climbed {
            self.summary.steps(&climbed);
            latency(&climbed).write(&self.into.join("latency.svg"))?;
            self.plots.push(("latency.svg".to_owned(), "latency against rate"));
        }
        let stormed = sale::measure(endpoints, &sizes.sale);
        if let Some(sale) =
            self.section(endpoints, "A sale that is stormed", stormed, sale::Report::holds).await
        {
            self.summary.sale(&sale);
        }
        let compared = locks::measure(endpoints, &sizes.locks);
        self.section(endpoints, "Locks compared", compared, locks::Locks::holds).await;
        let rivals = rivals::measure(endpoints, &sizes.rivals);
        let is_right = |rivals: &Rivals| rivals.wrong == 0;
        let rivals = self.section(endpoints, "Workflow engines compared", rivals, is_right).await;
        self.summary.rivals(rivals.as_ref());
        let stored = Box::pin(stored::measure(endpoints, &sizes.stored));
        if let Some(stored) =
            self.section(endpoints, "Many stored orders", stored, stored::Stored::holds).await
        {
            self.summary.stored(sizes.stored.orders, &stored);
        }
        // What nobody pays expires a quarter of an hour later: nothing is measured then.
        let (title, http) = &sizes.unpaid;
        self.over_http(endpoints, sizes.http.len() + 1, title, http).await?;
        let steady = http::alone(endpoints, &sizes.steady);
        let title = "A thousand orders a second, a fifth abandoned, a fifth declined";
        if let Some(steady) = self.section(endpoints, title, steady, http::Outcome::is_right).await {
            self.published.steady(&steady);
        }
        Ok(())
    }

    /// Orders over HTTP at one rate, with a plot of their own.
    async fn over_http(
        &mut self,
        endpoints: &Endpoints,
        number: usize,
        title: &str,
        http: &http::Http,
    ) -> anyhow::Result<()> {
        let measured = http::alone(endpoints, http);
        let outcome = self.section(endpoints, title, measured, http::Outcome::is_right).await;
        if let Some(outcome) = outcome {
            self.summary.http(title, &outcome);
            let file = format!("throughput-{number}.svg");
            throughput(title, &outcome).write(&self.into.join(&file))?;
            self.plots.push((file, "orders and requests, second by second"));
        }
        Ok(())
    }

    /// Runs one scenario, and the audit. One that fails is told in the report, and the next one goes on.
    async fn section<T: std::fmt::Display + Serialize>(
        &mut self,
        endpoints: &Endpoints,
        title: &str,
        measured: impl Future<Output = anyhow::Result<T>>,
        holds: impl Fn(&T) -> bool,
    ) -> Option<T> {
        eprintln!("{title} ...");
        let begun = Instant::now();
        let measured = measured.await;
        let took_s = begun.elapsed().as_secs_f64();
        let audited = Audit::run(endpoints).await;
        let (text, figures, mut holds) = match &measured {
            Ok(seen) => (seen.to_string(), serde_json::to_value(seen).unwrap_or_default(), holds(seen)),
            Err(error) => (format!("It did not come to an end: {error:#}\n"), Value::Null, false),
        };
        let audit = match audited {
            Ok(audit) => Some(audit),
            Err(error) => {
                eprintln!("  the audit did not come to an end: {error:#}");
                None
            }
        };
        holds &= audit.as_ref().is_some_and(Audit::is_clean);
        let audit_s = begun.elapsed().as_secs_f64() - took_s;
        let word = if holds { "holds" } else { "DOES NOT HOLD" };
        eprintln!("  {word}, {took_s:.1} s and {audit_s:.1} s for the audit");
        self.sections.push(Section { title: title.to_owned(), took_s, figures, text, audit, holds });
        // What is done is kept, should what follows be ended.
        if let Err(error) = self.write() {
            eprintln!("  {error:#}");
        }
        measured.ok().filter(|_| holds)
    }

    fn write(&self) -> anyhow::Result<()> {
        let write = |name: &str, text: &str| {
            let path = self.into.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("report.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write("report.md", &self.markdown()?)
    }

    fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let length = if self.is_short { "short" } else { "full" };
        writeln!(text, "# Load report\n\n{}. {length} run, seed {}.\n", self.machine, self.seed)?;
        writeln!(text, "Broker, PostgreSQL, Redis, every service and the load itself share these cores.\n")?;
        writeln!(text, "{}\n{}", self.summary, self.published)?;
        for (file, what) in &self.plots {
            writeln!(text, "![{what}]({file})\n")?;
        }
        for section in &self.sections {
            writeln!(text, "## {}\n\n{}", section.title, section.text.trim_end())?;
            match &section.audit {
                Some(audit) => writeln!(text, "\nAudit:\n\n{audit}")?,
                None => writeln!(text, "\nINVALID: there is no audit.\n")?,
            }
            if !section.holds {
                writeln!(text, "**This does not hold.**\n")?;
            }
        }
        Ok(text)
    }
}

/// Steps over several numbers of products, one table after the other.
#[derive(Serialize)]
#[serde(transparent)]
struct Climbed(Vec<steps::Steps>);

impl std::fmt::Display for Climbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|steps| writeln!(f, "{steps}"))
    }
}

fn throughput<'a>(title: &'a str, outcome: &http::Outcome) -> Plot<'a> {
    let line = |name: &str, of: fn(&http::count::Second) -> u64| Line {
        name: name.to_owned(),
        points: (0_u64..)
            .zip(&outcome.seen.timeline)
            .map(|(second, seen)| (http::plan::to_f64(second), http::plan::to_f64(of(seen))))
            .collect(),
    };
    let lines = vec![
        line("requests due", |second| second.due),
        line("requests answered", |second| second.answered),
        line("orders complete", |second| second.ended),
    ];
    Plot { title, x: "seconds, warm-up and drain too", y: "a second", is_logarithmic: false, lines }
}

fn cpu(rates: &Rates) -> Plot<'static> {
    let mut lines: Vec<Line> = Vec::new();
    let all = rates.0.iter().map(|run| (f64::from(run.rate), run.outcome.cpu_us())).collect();
    lines.push(Line { name: "all of the system".to_owned(), points: all });
    for run in &rates.0 {
        for (name, us) in run.outcome.cpu_by_process() {
            let point = (f64::from(run.rate), us);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name: name.to_owned(), points: vec![point] }),
            }
        }
    }
    Plot {
        title: "CPU per saga against rate",
        x: "sagas offered a second",
        y: "us",
        is_logarithmic: true,
        lines,
    }
}

fn latency(climbed: &[steps::Steps]) -> Plot<'static> {
    let mut lines = Vec::new();
    for steps in climbed {
        let mut line = |name: &str, of: fn(&http::Outcome) -> f64| {
            let points = steps.steps.iter().map(|step| (step.offered(), of(step))).collect();
            lines.push(Line { name: format!("{name}, {} skus", steps.skus), points });
        };
        line("complete p50", |step| step.seen.complete.figures().p50);
        line("complete p99", |step| step.seen.complete.figures().p99);
        line("202 p99", |step| step.seen.taken.figures().p99);
    }
    Plot { title: "Latency against rate", x: "orders offered a second", y: "ms", is_logarithmic: true, lines }
}
