//! Which Kafka, and how to be let in: addresses, TLS and SASL, the same for every client in the workspace.

use std::fmt;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Deserializer, Serialize};

/// How a broker makes sure who asks, and that nobody else reads along. The default is a plain connection without a name.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Encrypt, and check the broker's certificate and its host name.
    pub tls: bool,
    /// PEM file of the authority that signed the broker's certificate; without it the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate, for brokers that ask for one; with [`Security::key_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file of our certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// User name, for SASL; with [`Security::password`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How the password is proven.
    pub mechanism: Mechanism,
}

/// SASL mechanisms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Mechanism {
    /// RFC 5802 with SHA-512: the password does not travel.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 4616: the password travels as it is, so TLS is needed.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// Settings of [`Security`] that do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// One of two.
    #[error("kafka_security needs both user and password, or neither")]
    HalfAnAccount,
    /// One of two.
    #[error("kafka_security needs both certificate_file and key_file, or neither")]
    HalfACertificate,
    /// A file that nothing would use.
    #[error("kafka_security names certificates, which need tls = true")]
    CertificateWithoutTls,
    /// A password for everybody to read.
    #[error("kafka_security would send the password in clear text: PLAIN needs tls = true")]
    PasswordInClear,
}

/// A file that does not say how Kafka lets us in.
#[derive(Debug, thiserror::Error)]
pub enum SecurityFileError {
    /// It is not there, or not ours to read.
    #[error("{} can't be read", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has other fields.
    #[error("{} is not right", file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// What it says does not go together.
    #[error("{} is not right", file.display())]
    Wrong {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: SecurityError,
    },
}

impl Security {
    /// What a TOML file says: the fields of a service's table `kafka_security`.
    ///
    /// # Errors
    /// See [`SecurityFileError`].
    pub fn read(file: &Path) -> Result<Self, SecurityFileError> {
        let path = || file.to_owned();
        let text = std::fs::read_to_string(file)
            .map_err(|source| SecurityFileError::Unreadable { file: path(), source })?;
        let security: Self = toml::from_str(&text)
            .map_err(|source| SecurityFileError::Malformed { file: path(), source: Box::new(source) })?;
        security.check().map_err(|source| SecurityFileError::Wrong { file: path(), source })?;
        Ok(security)
    }

    /// Whether these settings go together; whether files are there is seen when a client is made.
    ///
    /// # Errors
    /// See [`SecurityError`].
    pub fn check(&self) -> Result<(), SecurityError> {
        if self.user.is_some() != self.password.is_some() {
            return Err(SecurityError::HalfAnAccount);
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return Err(SecurityError::HalfACertificate);
        }
        if !self.tls && (self.ca_file.is_some() || self.certificate_file.is_some()) {
            return Err(SecurityError::CertificateWithoutTls);
        }
        if !self.tls && self.user.is_some() && self.mechanism == Mechanism::Plain {
            return Err(SecurityError::PasswordInClear);
        }
        Ok(())
    }

    /// In the client library's words.
    fn options(&self) -> Vec<(&'static str, String)> {
        let protocol = match (self.tls, self.user.is_some()) {
            (false, false) => "PLAINTEXT",
            (false, true) => "SASL_PLAINTEXT",
            (true, false) => "SSL",
            (true, true) => "SASL_SSL",
        };
        let mut options = vec![("security.protocol", protocol.to_owned())];
        if self.user.is_some() {
            let mechanism = match self.mechanism {
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::Plain => "PLAIN",
            };
            options.push(("sasl.mechanism", mechanism.to_owned()));
        }
        let texts = [("sasl.username", &self.user), ("sasl.password", &self.password)];
        let files = [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.certificate_file),
            ("ssl.key.location", &self.key_file),
        ];
        options.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
        let shown = |file: &PathBuf| file.display().to_string();
        options.extend(files.into_iter().filter_map(|(name, file)| Some((name, shown(file.as_ref()?)))));
        options
    }
}

impl fmt::Debug for Security {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("tls", &self.tls)
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("user", &self.user)
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// For `#[serde(deserialize_with)]`: settings that do not go together are none.
///
/// # Errors
/// As [`Security::check`], and what deserializing says.
pub fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Security, D::Error> {
    let security = Security::deserialize(deserializer)?;
    security.check().map_err(serde::de::Error::custom)?;
    Ok(security)
}

/// A Kafka cluster and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    brokers: String,
    security: Security,
}

impl Cluster {
    /// The cluster at `brokers` (`host:port,...`).
    #[must_use]
    pub fn new(brokers: &str, security: &Security) -> Self {
        Self { brokers: brokers.to_owned(), security: security.clone() }
    }

    /// `host:port,...`
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// How it lets us in.
    #[must_use]
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// What every client needs to reach it; the rest is up to who makes the client.
    #[must_use]
    pub fn client(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", client_id);
        for (name, value) in self.security.options() {
            config.set(name, value);
        }
        config
    }
}

impl From<&Self> for Cluster {
    fn from(cluster: &Self) -> Self {
        cluster.clone()
    }
}

impl From<&str> for Cluster {
    /// A cluster that lets everybody in.
    fn from(brokers: &str) -> Self {
        Self::new(brokers, &Security::default())
    }
}

impl From<&String> for Cluster {
    fn from(brokers: &String) -> Self {
        brokers.as_str().into()
    }
}

/// Whether waiting won't help: the broker refuses who we are, or what we ask for.
#[must_use]
pub fn is_refusal(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(toml: &str) -> Security {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn settings_become_the_client_library_s() {
        let all = security(
            "tls = true\nca_file = \"/ca.pem\"\nuser = \"api\"\npassword = \"p\"\nmechanism = \"SCRAM-SHA-256\"",
        );
        assert_eq!(all.check(), Ok(()));
        let client = Cluster::new("a:1", &all).client("api");
        for (name, value) in [
            ("bootstrap.servers", "a:1"),
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "api"),
            ("sasl.password", "p"),
            ("ssl.ca.location", "/ca.pem"),
        ] {
            assert_eq!(client.get(name), Some(value), "{name}");
        }
        let plain = Cluster::from("a:1").client("api");
        assert_eq!((plain.get("security.protocol"), plain.get("sasl.mechanism")), (Some("PLAINTEXT"), None));
    }

    #[test]
    fn settings_that_do_not_go_together_are_told() {
        for (toml, error) in [
            ("user = \"api\"", SecurityError::HalfAnAccount),
            ("tls = true\nkey_file = \"k\"", SecurityError::HalfACertificate),
            ("ca_file = \"c\"", SecurityError::CertificateWithoutTls),
            ("user = \"u\"\npassword = \"p\"\nmechanism = \"PLAIN\"", SecurityError::PasswordInClear),
        ] {
            assert_eq!(security(toml).check(), Err(error), "{toml}");
        }
        assert!(toml::from_str::<Security>("mechanism = \"GSSAPI\"").is_err());
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", security("user = \"api\"\npassword = \"hush\""));
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_file_that_is_missing_malformed_or_contradicts_itself_is_named() {
        let folder = std::env::temp_dir().join(format!("kafka-cluster-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("security.toml");
        assert!(matches!(Security::read(&file), Err(SecurityFileError::Unreadable { .. })));
        for (text, wrong) in
            [("tls = 1", "Malformed"), ("ttls = true", "Malformed"), ("user = \"kim\"", "Wrong")]
        {
            std::fs::write(&file, text).unwrap();
            let error = Security::read(&file).unwrap_err();
            assert!(format!("{error:?}").starts_with(wrong), "{text}: {error:?}");
            assert!(error.to_string().contains("security.toml"), "{error}");
        }
        std::fs::write(&file, "tls = true").unwrap();
        assert_eq!(Security::read(&file).unwrap(), Security { tls: true, ..Security::default() });
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
