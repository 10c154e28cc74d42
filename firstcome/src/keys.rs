//! The development key, made once, and tokens signed with it.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::home::{Home, write_private};

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

/// Signs tokens with the development key of a data folder.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    /// Reads the key; makes it first if there is none.
    pub(crate) fn open(home: &Home) -> anyhow::Result<Self> {
        ensure(home)?;
        let path = home.keys();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
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

    pub(crate) fn sign(
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

/// Makes a random key unless there is a keys file.
pub(crate) fn ensure(home: &Home) -> anyhow::Result<()> {
    let path = home.keys();
    if path.exists() {
        return Ok(());
    }
    home.make()?;
    // Three random UUIDs hold 366 random bits from the system's generator, more than HS256 can use.
    let bytes: Vec<u8> = (0..3).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    let key = Key {
        kid: format!("development-{}", Uuid::new_v4().simple()),
        alg: "HS256".to_owned(),
        secret: Some(STANDARD.encode(bytes)),
        development: true,
    };
    write_private(&path, &(serde_json::to_string_pretty(&KeysFile { keys: vec![key] })? + "\n"))
}
