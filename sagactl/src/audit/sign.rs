//! A signed report.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::failure::Failure;

/// A key to sign with.
pub(super) struct Key(Ed25519KeyPair);

/// The report's exact text, and a signature of its bytes.
#[derive(Serialize)]
pub(super) struct Signed {
    report: String,
    algorithm: &'static str,
    public_key: String,
    signature: String,
}

impl Key {
    /// Reads an Ed25519 key, PKCS #8, PEM.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::usage(format!(
                "{}: {why}; openssl genpkey -algorithm ed25519 makes a key",
                file.display()
            ))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body.trim()).map_err(|_no_base64| wrong("it is no PEM file"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Self).map_err(|_rejected| wrong("it is no Ed25519 key in PKCS #8"))
    }

    pub(super) fn sign<T: Serialize>(&self, report: &T) -> Result<Signed, Failure> {
        let report = serde_json::to_string(report).map_err(|error| Failure::found(error.to_string()))?;
        Ok(Signed {
            algorithm: "Ed25519",
            public_key: STANDARD.encode(self.0.public_key().as_ref()),
            signature: STANDARD.encode(self.0.sign(report.as_bytes()).as_ref()),
            report,
        })
    }
}
