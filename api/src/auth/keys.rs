//! The keys that tokens are verified with: a JSON file, read again when it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain_types::CustomerId;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Caller;
use crate::notices::MailAddress;

/// How often the file is looked at.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Shortest HS256 secret, bytes (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Why a keys file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It can't be read.
    #[error("the keys file {path} can't be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not of the documented form.
    #[error("the keys file {path} is malformed")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A key in it can't be used.
    #[error("key {kid}: {problem}")]
    BadKey {
        /// Which key.
        kid: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Anybody can read the development key: it protects nothing.
    #[error("key {kid} is a development key: it is refused unless the api listens on loopback")]
    DevelopmentKey {
        /// Which key.
        kid: String,
    },
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid here")]
    Invalid,
}

/// What tokens must say besides being signed.
#[derive(Debug, Clone)]
pub(crate) struct Expectations {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// Whether the api is reachable from this machine only.
    pub(crate) loopback_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    kid: String,
    alg: KeyAlgorithm,
    /// HS256: base64.
    #[serde(default)]
    secret: Option<SecretString>,
    /// EdDSA, RS256: PEM.
    #[serde(default)]
    public_key: Option<String>,
    #[serde(default)]
    development: bool,
}

#[derive(Deserialize, Clone, Copy)]
enum KeyAlgorithm {
    HS256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    RS256,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    email: Option<String>,
}

struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

type KeySet = HashMap<String, Key>;

/// The present keys. Clones share them.
#[derive(Clone)]
pub(crate) struct Keys {
    present: Arc<RwLock<Arc<KeySet>>>,
}

impl Keys {
    /// Reads the file.
    pub(crate) fn load(path: &Path, expected: &Expectations) -> Result<Self, KeysError> {
        let keys = read(path, expected)?;
        Ok(Self { present: Arc::new(RwLock::new(Arc::new(keys))) })
    }

    /// Reads the file again whenever it changes, until `shutdown`. A file that can't be used changes nothing.
    pub(crate) async fn watch(self, path: PathBuf, expected: Expectations, shutdown: CancellationToken) {
        let mut seen = stamp(&path);
        while shutdown.run_until_cancelled(tokio::time::sleep(POLL_EVERY)).await.is_some() {
            let now = stamp(&path);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&path, &expected) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), "token keys read again");
                    *self.present.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "token keys kept as they were");
                }
            }
        }
    }

    /// Who the token's bearer is.
    pub(crate) fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let header = decode_header(token).map_err(|_malformed| Refusal::Malformed)?;
        if header.crit.is_some() {
            return Err(Refusal::Invalid);
        }
        let keys = Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner));
        let key = header.kid.as_deref().and_then(|kid| keys.get(kid)).ok_or(Refusal::UnknownKey)?;
        let claims = decode::<Claims>(token, &key.decoding, &key.validation)
            .map_err(|error| {
                let is_expired = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::ExpiredSignature);
                if is_expired { Refusal::Expired } else { Refusal::Invalid }
            })?
            .claims;
        let id = Uuid::parse_str(&claims.sub).map_err(|_not_a_uuid| Refusal::Invalid)?;
        let has = |role: &str| claims.roles.iter().any(|held| held == role);
        let mail = claims.email.as_deref().and_then(MailAddress::new);
        Ok(Caller { id: CustomerId(id), customer: has("customer"), admin: has("admin"), mail })
    }
}

/// What changes when a file does.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path, expected: &Expectations) -> Result<KeySet, KeysError> {
    let text =
        std::fs::read(path).map_err(|source| KeysError::Unreadable { path: path.to_owned(), source })?;
    let file: KeysFile = serde_json::from_slice(&text)
        .map_err(|source| KeysError::Malformed { path: path.to_owned(), source })?;
    let mut keys = KeySet::new();
    for entry in file.keys {
        let bad = |problem| KeysError::BadKey { kid: entry.kid.clone(), problem };
        if entry.development && !expected.loopback_only {
            return Err(KeysError::DevelopmentKey { kid: entry.kid });
        }
        let decoding = decoding_key(&entry).map_err(bad)?;
        let algorithm = match entry.alg {
            KeyAlgorithm::HS256 => Algorithm::HS256,
            KeyAlgorithm::EdDsa => Algorithm::EdDSA,
            KeyAlgorithm::RS256 => Algorithm::RS256,
        };
        let key = Key { decoding, validation: validation(algorithm, expected) };
        if keys.insert(entry.kid.clone(), key).is_some() {
            return Err(bad("it is there twice"));
        }
    }
    Ok(keys)
}

fn decoding_key(entry: &KeyEntry) -> Result<DecodingKey, &'static str> {
    match (entry.alg, &entry.secret, &entry.public_key) {
        (KeyAlgorithm::HS256, Some(secret), None) => {
            let secret =
                STANDARD.decode(secret.expose_secret()).map_err(|_not_base64| "the secret is not base64")?;
            if secret.len() < MIN_SECRET_BYTES {
                return Err("the secret is shorter than 32 bytes");
            }
            Ok(DecodingKey::from_secret(&secret))
        }
        (KeyAlgorithm::EdDsa, None, Some(pem)) => {
            DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_not_pem| "the public key is no Ed25519 PEM")
        }
        (KeyAlgorithm::RS256, None, Some(pem)) => {
            DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_not_pem| "the public key is no RSA PEM")
        }
        (KeyAlgorithm::HS256, _, _) => Err("HS256 takes a secret, and no public key"),
        (KeyAlgorithm::EdDsa | KeyAlgorithm::RS256, _, _) => Err("it takes a public_key, and no secret"),
    }
}

/// The algorithm is the key's, never the token's choice.
fn validation(algorithm: Algorithm, expected: &Expectations) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.validate_exp = true;
    validation.validate_nbf = true;
    validation.validate_aud = true;
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}
