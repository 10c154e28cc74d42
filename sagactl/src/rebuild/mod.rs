//! `rebuild`: a service's database made from Kafka alone, then compared with the live one at the same offsets, entry by entry.
//! The live database is only looked at; the new one must be empty.

mod api;
mod orchestrator;

use std::str::FromStr;
use std::time::{Duration, Instant};

use messaging::{GroupPosition, LogReader, NextOffset};
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::cli::{Rebuild, RebuiltService};
use crate::failure::{Failure, Verdict};
use crate::servers::Servers;
use crate::terminal::{Terminal, Tone, plain};

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rebuilt {
    /// Records that were applied.
    records: u64,
    seconds: f64,
    /// With `--lost`: messages that the lost database had not published yet; the next owner does.
    to_publish: u64,
    /// Entries that were compared with the live database's, by kind; empty if there was none.
    compared: std::collections::BTreeMap<&'static str, u64>,
    /// How many differ.
    differences: u64,
    /// The first of them.
    described: Vec<String>,
}

impl Rebuilt {
    fn compare(&mut self, kind: &'static str, entries: u64) {
        *self.compared.entry(kind).or_default() += entries;
    }

    fn differs(&mut self, what: String) {
        self.differences += 1;
        if self.described.len() < 20 {
            self.described.push(what);
        }
    }
}

async fn empty_database(url: &str) -> Result<PgPool, Failure> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Failure::usage(format!("--into is no url of a database: {error}")))?
        .application_name("sagactl-rebuild");
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(5));
    let pool = pool.connect_with(options).await.map_err(|error| {
        Failure::away(format!("the database to build at {place} does not let us in: {error}"))
    })?;
    let failed = |error: sqlx::Error| Failure::away(format!("the database to build failed: {error}"));
    let mut connection = pool.acquire().await.map_err(failed)?;
    let is_empty = messaging::is_empty_database(&mut connection).await.map_err(failed)?;
    drop(connection);
    if !is_empty {
        return Err(Failure::usage("the database to build is not empty: name a new one (createdb)"));
    }
    Ok(pool)
}

/// A group's position at the end of what was read.
fn position(
    reader: &LogReader,
    (group, topic, partition): (&str, &str, i32),
    next: i64,
) -> Result<GroupPosition, Failure> {
    let (low, high) = reader.bounds(topic, partition)?;
    Ok(GroupPosition {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
        next: NextOffset(next),
        cluster_id: reader.cluster_id()?,
        log_id: reader.log_id(topic, partition, low, high)?,
        epoch: 0,
    })
}

/// The beginning of a log that is to be read from its beginning.
fn whole(reader: &LogReader, topic: &str, partition: i32) -> Result<i64, Failure> {
    let (low, high) = reader.bounds(topic, partition)?;
    if low > 0 {
        return Err(Failure::found(format!(
            "the beginning of {topic}/{partition} is gone: it starts at offset {low}. A rebuild needs the whole log; its retention \
             must be -1"
        )));
    }
    Ok(high)
}

pub(crate) async fn run(
    servers: &Servers,
    options: &Rebuild,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let began = Instant::now();
    drop(servers.log()?);
    let into = empty_database(&options.into).await?;
    let mut rebuilt = match options.service {
        RebuiltService::Orchestrator => orchestrator::rebuild(servers, &into, options.lost).await?,
        RebuiltService::Api => {
            api::rebuild(servers, &into, options.lost, options.consumer_group.clone()).await?
        }
    };
    rebuilt.seconds = began.elapsed().as_secs_f64();
    if terminal.json {
        terminal.json(&rebuilt)?;
        return Ok(Verdict::found_if(rebuilt.differences > 0));
    }
    for difference in &rebuilt.described {
        terminal.line(terminal.toned(Tone::Bad, &plain(difference)));
    }
    let compared: Vec<String> = rebuilt.compared.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let compared = if options.lost { "nothing (--lost)".to_owned() } else { compared.join(", ") };
    let verdict = match rebuilt.differences {
        0 => terminal.toned(Tone::Good, "built"),
        n => terminal.toned(Tone::Bad, &format!("built, {n} differences")),
    };
    terminal.line(format!(
        "{verdict} from {} records in {:.1} s; compared with the live database: {compared}",
        rebuilt.records, rebuilt.seconds
    ));
    Ok(Verdict::found_if(rebuilt.differences > 0))
}
