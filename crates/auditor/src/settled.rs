//! Everything in one go, once nothing is on its way any more: what a demo and a load test end with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use messaging::Cluster;
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::first_come::LogError;
use crate::{Databases, Report, first_come, trail};

/// How often the databases are compared while orders are on their way.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why the whole could not be audited.
#[derive(Debug, thiserror::Error)]
pub enum SettledError {
    /// No address of a service's database.
    #[error("no {0} database is named")]
    NoDatabase(&'static str),
    /// A database did not answer, or its address is none.
    #[error("the databases can't be audited")]
    Database(#[from] sqlx::Error),
    /// The logs did not answer, or hold what nobody can read.
    #[error("the logs can't be audited")]
    Log(#[from] LogError),
    /// The task that reads the logs was ended.
    #[error("the audit of the logs was ended")]
    Ended(#[from] tokio::task::JoinError),
}

/// A claim, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What is claimed, with the figures that were seen.
    pub claim: String,
    /// Whether it is so.
    pub holds: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Settled {
    /// Databases against each other, first come first served, each order's way.
    pub claims: Vec<Claim>,
    /// A sentence for each violation, and for what did not settle in time.
    pub notes: Vec<String>,
}

impl Settled {
    /// Nothing is wrong, and nothing is on its way.
    pub fn is_clean(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

impl Databases {
    /// Opens the databases that `endpoints.json` names by service, two connections each, as they are needed.
    ///
    /// # Errors
    /// [`SettledError::NoDatabase`] if one is missing, [`SettledError::Database`] if an address is none.
    pub fn open(urls: &BTreeMap<String, Vec<String>>) -> Result<Self, SettledError> {
        let pools = |name: &'static str| -> Result<Vec<PgPool>, SettledError> {
            let urls =
                urls.get(name).filter(|urls| !urls.is_empty()).ok_or(SettledError::NoDatabase(name))?;
            let open = |url: &String| PgPoolOptions::new().max_connections(2).connect_lazy(url);
            Ok(urls.iter().map(open).collect::<Result<_, _>>()?)
        };
        let api = pools("api")?.into_iter().next().ok_or(SettledError::NoDatabase("api"))?;
        Ok(Self { stock: pools("stock")?, payment: pools("payment")?, api })
    }
}

/// How long is waited for what is on its way.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While nothing changes: what is wrong then stays wrong.
    pub unchanged: Duration,
    /// In all.
    pub total: Duration,
}

/// Compares the databases until nothing is on its way or patience ends, and then reads the logs.
///
/// # Errors
/// If a database or the logs can't be read. What is wrong, or did not settle in time, is no error but a claim that
/// does not hold.
pub async fn audit_settled(
    databases: &Databases,
    cluster: impl Into<Cluster>,
    patience: Patience,
) -> Result<Settled, SettledError> {
    let report = once_settled(databases, patience).await?;
    let mut settled = Settled::default();
    let mut claim = |claim: String, holds: bool| settled.claims.push(Claim { claim, holds });
    let units = report.units;
    claim(
        format!(
            "audit of all orders: {} units = {} available + {} held + {} sold; {} charged, {} refunded; \
             {} violations, {} unsettled",
            units.total,
            units.available,
            units.held,
            units.sold,
            report.charged,
            report.refunded,
            report.violations.len(),
            report.unsettled.len()
        ),
        report.is_clean(),
    );
    let cluster = cluster.into();
    let shown = trail::shown(databases).await?;
    let logs = tokio::task::spawn_blocking(move || {
        let turns = first_come::check_logs(&cluster)?;
        Ok::<_, LogError>((turns, trail::check_logs(&cluster, &shown)?))
    });
    let (turns, trails) = logs.await??;
    claim(
        format!(
            "first come, first served: {} reserves in the order they were applied, {} tickets; {} out of turn",
            turns.reserves,
            turns.tickets,
            turns.violations.len()
        ),
        turns.violations.is_empty(),
    );
    claim(
        format!(
            "each order's way: {} orders followed through the logs; {} wrong",
            trails.orders,
            trails.violations.len()
        ),
        trails.violations.is_empty(),
    );
    settled.notes.extend(report.violations.iter().map(ToString::to_string));
    settled.notes.extend(report.unsettled.into_iter().map(|unsettled| unsettled.detail));
    settled.notes.extend(turns.violations.iter().chain(&trails.violations).map(ToString::to_string));
    Ok(settled)
}

/// The first report that is clean, or the last one.
async fn once_settled(databases: &Databases, patience: Patience) -> Result<Report, SettledError> {
    let began = Instant::now();
    let (mut last, mut changed) = (crate::audit(databases).await?, Instant::now());
    while !last.is_clean() && changed.elapsed() < patience.unchanged && began.elapsed() < patience.total {
        tokio::time::sleep(LOOK_EVERY).await;
        let report = crate::audit(databases).await?;
        if report != last {
            (last, changed) = (report, Instant::now());
        }
    }
    Ok(last)
}
