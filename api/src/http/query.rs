//! Query strings: only known parameters, each once.

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::http::fields::Findings;
use crate::problem::Problem;

/// Items of a page unless the request says otherwise.
pub(crate) const DEFAULT_LIMIT: u16 = 20;
/// Most items of a page.
pub(crate) const MAX_LIMIT: u16 = 100;

/// The parameters of a request, as they were sent.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(pairs)| Self(pairs)).map_err(
            |_not_form_encoded| {
                Problem::new(StatusCode::BAD_REQUEST, "invalid_query", "the query string is malformed")
            },
        )
    }
}

impl Parameters {
    /// The value of a parameter; it is known from now on.
    pub(crate) fn take(&mut self, name: &str, findings: &mut Findings) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.swap_remove(index);
        if self.0.iter().any(|(other, _)| other == name) {
            findings.add(name, "repeated", "this parameter may be given once");
            self.0.retain(|(other, _)| other != name);
        }
        Some(value)
    }

    /// `limit`: 1 to 100, by default 20.
    pub(crate) fn limit(&mut self, findings: &mut Findings) -> u16 {
        let Some(text) = self.take("limit", findings) else { return DEFAULT_LIMIT };
        match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
            _ => {
                findings.add("limit", "out_of_range", format!("1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        }
    }

    /// What is left is unknown.
    pub(crate) fn finish(self, mut findings: Findings) -> Result<(), Problem> {
        for (name, _) in self.0 {
            findings.add(name, "unknown_parameter", "there is no such parameter");
        }
        findings.finish()
    }
}
