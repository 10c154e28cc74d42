//! What each scenario ends with: a result without a clean audit is none.

use std::fmt;
use std::time::Duration;

use auditor::Databases;
use auditor::settled::{Claim, Patience, Settled, audit_settled};
use serde::Serialize;

use crate::endpoints::Endpoints;

/// Orders that nobody paid expire by the thousand, fifteen minutes after they were placed, and while they do the databases can't be
/// compared. What stays as it is for a minute is wrong.
const PATIENCE: Patience = Patience { unchanged: Duration::from_secs(60), total: Duration::from_secs(900) };
/// Most details that are printed.
const MOST_NOTES: usize = 10;

/// The audit of everything that the running system holds.
#[derive(Default, Serialize)]
pub(crate) struct Audit(Settled);

impl Audit {
    pub(crate) async fn run(endpoints: &Endpoints) -> anyhow::Result<Self> {
        let databases = Databases::open(&endpoints.postgres)?;
        Ok(Self(audit_settled(&databases, endpoints.cluster(), PATIENCE).await?))
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.0.is_clean()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_clean() {
            writeln!(f, "INVALID: the audit is not clean, so the figures above count for nothing.")?;
        }
        for Claim { claim, holds } in &self.0.claims {
            writeln!(f, "- {} {claim}", if *holds { "ok    " } else { "BROKEN" })?;
        }
        for note in self.0.notes.iter().take(MOST_NOTES) {
            writeln!(f, "  - {note}")?;
        }
        Ok(())
    }
}
