//! Relays between the system and its servers, which delay, cut, swallow and half-close what passes.

use std::time::Duration;

use local_stack::{Part, RelayedListener, Stack, StackOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How much later each piece comes over a slow link.
const DELAY: Duration = Duration::from_millis(100);
/// Bytes of a piece at most.
const PIECE: usize = 64 * 1024;

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Whole,
    /// Every piece takes [`DELAY`] longer, both ways.
    Slow,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Connections stay, and nothing comes through until the link is another.
    Silent,
    /// Servers close their side; what is sent to them still arrives.
    HalfClosed,
}

impl Link {
    /// Every fault, and what to call it.
    pub(crate) const FAULTS: [(Self, &'static str); 4] = [
        (Self::Slow, "every packet 100 ms late"),
        (Self::Cut, "connections cut"),
        (Self::Silent, "a silent link"),
        (Self::HalfClosed, "half-closed connections"),
    ];
}

/// One way of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Way {
    fn is_closed_by(self, link: Link) -> bool {
        link == Link::Cut || (link == Link::HalfClosed && self == Self::ToClient)
    }
}

/// A port that leads to another one.
struct Relay {
    port: u16,
    link: watch::Sender<Link>,
}

impl Relay {
    async fn to(server: u16) -> Self {
        let port = local_stack::free_port().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (link, state) = watch::channel(Link::Whole);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let state = state.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    drop((client.set_nodelay(true), server.set_nodelay(true)));
                    let ((client_reads, client_writes), (server_reads, server_writes)) =
                        (client.into_split(), server.into_split());
                    tokio::spawn(pass(client_reads, server_writes, state.clone(), Way::ToServer));
                    pass(server_reads, client_writes, state, Way::ToClient).await;
                });
            }
        });
        Self { port, link }
    }
}

/// Until one side ends or the link closes this way; then the other side sees the end.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>, way: Way) {
    let mut closes = link.clone();
    let closed = closes.wait_for(|link| way.is_closed_by(*link));
    let passing = async {
        let mut piece = vec![0; PIECE];
        loop {
            let Ok(length @ 1..) = from.read(&mut piece).await else { return };
            let now = *link.borrow_and_update();
            match now {
                Link::Slow => tokio::time::sleep(DELAY).await,
                Link::Silent => {
                    if link.wait_for(|link| *link != Link::Silent).await.is_err() {
                        return;
                    }
                }
                Link::Whole | Link::Cut | Link::HalfClosed => {}
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = closed => {}
        () = passing => {}
    }
}

/// Servers behind relays.
pub(crate) struct Links {
    _stack: Stack,
    kafka: Relay,
    postgres: (Relay, String),
    redis: Relay,
}

impl Links {
    pub(crate) async fn start(name: &str) -> Self {
        let behind = local_stack::free_port().unwrap();
        let kafka = Relay::to(behind).await;
        let stack = Stack::start(StackOptions {
            kafka_relayed: Some(RelayedListener { port: behind, advertised: kafka.port }),
            ..StackOptions::for_tests(testkit::fresh_folder(name).join("stack"))
        })
        .await
        .unwrap();
        let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
        let url = stack.postgres_url("postgres");
        let postgres = Relay::to(port(&url)).await;
        let relayed = url.replace(&format!(":{}/", port(&url)), &format!(":{}/", postgres.port));
        let redis = Relay::to(port(&stack.redis_url())).await;
        Self { _stack: stack, kafka, postgres: (postgres, relayed), redis }
    }

    /// How the system is told to use them.
    pub(crate) fn options(&self) -> [String; 6] {
        [
            "--kafka".to_owned(),
            format!("127.0.0.1:{}", self.kafka.port),
            "--postgres".to_owned(),
            self.postgres.1.clone(),
            "--redis".to_owned(),
            format!("redis://127.0.0.1:{}", self.redis.port),
        ]
    }

    pub(crate) fn set(&self, part: Part, link: Link) {
        let relay = match part {
            Part::Kafka => &self.kafka,
            Part::Postgres => &self.postgres.0,
            Part::Redis => &self.redis,
        };
        relay.link.send_replace(link);
    }
}
