//! The way to Redis. Whatever is kept there is a hint: without it the api works on, so nobody ever waits long for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, FromRedisValue, IntoConnectionInfo, RedisError, ScriptInvocation, TlsCertificates};
use tokio::sync::OnceCell;

/// How long a server may say nothing at all, to anybody, while somebody waits for its answer.
const SILENCE: Duration = Duration::from_millis(SILENCE_MS);
const SILENCE_MS: u64 = 200;
/// Silences in a row after which it counts as away. The second one begins when this node has had its turn: a node that
/// was itself too busy to look sees the answer before that one is over.
const SILENCES: u32 = 2;
/// How long an answer may take while others come: on a busy machine it is late, and whoever is let in without it loses
/// his place.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// After a failure one script at a time tries again, this often; all others are told at once that it is away.
const LEAVE_ALONE_MS: u64 = 200;
/// Scripts that may be under way on one connection, so that an answer never waits behind a long queue.
const IN_FLIGHT: usize = 4_096;

/// Redis does not answer, or not as it should. It was logged when that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("redis does not answer")]
pub(crate) struct RedisAway;

/// A connection that is made when it is first needed, and made anew when it breaks. Clones share it.
#[derive(Clone)]
pub(crate) struct Redis {
    way: Way,
    health: Arc<Health>,
}

#[derive(Clone)]
enum Way {
    Server(ConnectionManager),
    Cluster(Arc<LazyCluster>),
}

struct LazyCluster {
    client: ClusterClient,
    connection: OnceCell<ClusterConnection>,
}

/// Whether it answered the last time.
struct Health {
    began: Instant,
    is_away: AtomicBool,
    /// Milliseconds since `began` before which nobody asks.
    alone_until_ms: AtomicU64,
    /// When the last answer came.
    answered_ms: AtomicU64,
}

impl Redis {
    /// `urls`: one server, or with `cluster` some nodes of a Redis Cluster; `authority`: the PEM of the authority that signed the
    /// certificates of servers at `rediss://`, if it is none of the system's. Connects later, so that a node starts without
    /// Redis. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If a URL or the PEM is none, or there is not exactly one URL without `cluster`.
    pub(crate) fn connect(
        urls: &[String],
        cluster: bool,
        authority: Option<Vec<u8>>,
    ) -> Result<Self, RedisError> {
        let trust = authority.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let way = if cluster { Way::cluster(urls, trust)? } else { Way::server(urls, trust)? };
        let health = Health {
            began: Instant::now(),
            is_away: AtomicBool::new(false),
            alone_until_ms: AtomicU64::new(0),
            answered_ms: AtomicU64::new(0),
        };
        Ok(Self { way, health: Arc::new(health) })
    }

    /// Whether keys live apart: then a script is to have one key, or keys with one hash tag.
    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.way, Way::Cluster(_))
    }

    /// Whether nobody is to ask for a moment: it was away, and somebody else looks whether it is back.
    pub(crate) fn is_left_alone(&self) -> bool {
        let Health { is_away, alone_until_ms, .. } = &*self.health;
        is_away.load(Ordering::Relaxed) && self.health.elapsed_ms() < alone_until_ms.load(Ordering::Relaxed)
    }

    /// Runs a script, loading it first where it is not known. It may have run although the answer is [`RedisAway`].
    ///
    /// # Errors
    /// If Redis does not answer in time, fails, or answered something else than a `T`; and for a short while after that.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisAway> {
        if !self.health.may_ask() {
            return Err(RedisAway);
        }
        match self.answer(script).await {
            Ok(value) => {
                self.health.answered();
                Ok(value)
            }
            Err(error) => {
                self.health.failed(&error);
                Err(RedisAway)
            }
        }
    }
}

impl Redis {
    /// Waits for an answer while there is reason to: as long as the server answers anybody.
    async fn answer<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        let began_ms = self.health.elapsed_ms();
        let mut answer = std::pin::pin!(self.way.invoke(script));
        let mut silences = 0;
        while silences < SILENCES {
            let window_ms = self.health.elapsed_ms();
            if let Ok(answer) = tokio::time::timeout(SILENCE, &mut answer).await {
                return answer;
            }
            let is_silent = self.health.answered_ms.load(Ordering::Relaxed) < window_ms;
            silences = if is_silent { silences + 1 } else { 0 };
            if u128::from(self.health.elapsed_ms().saturating_sub(began_ms)) > ANSWER_WITHIN.as_millis() {
                break;
            }
        }
        Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("away", &self.health.is_away).finish_non_exhaustive()
    }
}

impl Way {
    fn server(urls: &[String], trust: Option<TlsCertificates>) -> Result<Self, RedisError> {
        let [url] = urls else {
            return Err(RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "exactly one redis url, or a cluster",
            )));
        };
        let info = url.as_str().into_connection_info()?.set_tcp_settings(tcp());
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(SILENCE))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_concurrency_limit(IN_FLIGHT)
            // The next script tries again: its caller need not wait for a back-off.
            .set_number_of_retries(0);
        let client = match trust {
            Some(trust) => Client::build_with_tls(info, trust)?,
            None => Client::open(info)?,
        };
        Ok(Self::Server(ConnectionManager::new_lazy_with_config(client, config)?))
    }

    fn cluster(urls: &[String], trust: Option<TlsCertificates>) -> Result<Self, RedisError> {
        let mut builder = ClusterClient::builder(urls.iter().map(String::as_str))
            .tcp_settings(tcp())
            .connection_timeout(SILENCE)
            .response_timeout(ANSWER_WITHIN)
            .connection_concurrency_limit(IN_FLIGHT)
            .retries(2);
        if let Some(trust) = trust {
            builder = builder.certs(trust);
        }
        let client = builder.build()?;
        Ok(Self::Cluster(Arc::new(LazyCluster { client, connection: OnceCell::new() })))
    }

    async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        match self {
            Self::Server(connection) => script.invoke_async(&mut connection.clone()).await,
            Self::Cluster(cluster) => {
                let connect = || cluster.client.get_async_connection();
                let connection = cluster.connection.get_or_try_init(connect).await?;
                script.invoke_async(&mut connection.clone()).await
            }
        }
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

impl Health {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether to ask. Of those who come once the time is over, the first one asks for all.
    fn may_ask(&self) -> bool {
        if !self.is_away.load(Ordering::Relaxed) {
            return true;
        }
        let (now, until) = (self.elapsed_ms(), self.alone_until_ms.load(Ordering::Relaxed));
        let next = now.saturating_add(2 * SILENCE_MS);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        now >= until && self.alone_until_ms.compare_exchange(until, next, success, failure).is_ok()
    }

    fn answered(&self) {
        self.answered_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("redis answers again");
        }
    }

    fn failed(&self, error: &RedisError) {
        let until = self.elapsed_ms().saturating_add(LEAVE_ALONE_MS);
        self.alone_until_ms.store(until, Ordering::Relaxed);
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "redis is away: everybody is admitted and the stock worker decides"
            );
        }
    }
}
