//! The development key, made once, and tokens signed with it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const ISSUER: &str = "firstcome";
const AUDIENCE: &str = "firstcome-api";

#[derive(Serialize, Deserialize)]
struct KeysFile {
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    kid: String,
    alg: String,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    development: bool,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: Uuid,
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// Signs tokens with the development key.
pub struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    /// Reads the key from a keys file.
    ///
    /// # Errors
    /// If the file can't be read, or holds no development key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: KeysFile =
            serde_json::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
        let key = file
            .keys
            .into_iter()
            .find(|key| key.development && key.alg == "HS256")
            .with_context(|| format!("{} holds no development key", path.display()))?;
        let secret = key.secret.with_context(|| format!("key {} has no secret", key.kid))?;
        let secret = STANDARD
            .decode(secret)
            .with_context(|| format!("the secret of key {} is not base64", key.kid))?;
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.kid);
        Ok(Self { header, key: EncodingKey::from_secret(&secret) })
    }

    /// A token that is valid for `ttl` from now on.
    ///
    /// # Errors
    /// If `ttl` is longer than time can be told.
    pub fn sign(
        &self,
        customer: Uuid,
        roles: &[String],
        email: Option<&str>,
        ttl: Duration,
    ) -> anyhow::Result<String> {
        let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp();
        let exp = i64::try_from(ttl.as_secs())
            .ok()
            .and_then(|ttl| now.checked_add(ttl))
            .context("the ttl is too long")?;
        let claims = Claims { sub: customer, roles, email, iss: ISSUER, aud: AUDIENCE, iat: now, exp };
        encode(&self.header, &claims, &self.key).context("the token could not be signed")
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// A keys file with a random development key.
///
/// # Errors
/// None in practice: if it can't be written as JSON.
pub fn new_keys_file() -> anyhow::Result<String> {
    // Three random UUIDs hold 366 random bits from the system's generator, more than HS256 can use.
    let bytes: Vec<u8> = (0..3).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    let key = Key {
        kid: format!("development-{}", Uuid::new_v4().simple()),
        alg: "HS256".to_owned(),
        secret: Some(STANDARD.encode(bytes)),
        development: true,
    };
    Ok(serde_json::to_string_pretty(&KeysFile { keys: vec![key] })? + "\n")
}
