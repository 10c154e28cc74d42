//! Connections: taken, bounded in number and time, and ended in order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::edge::{Edge, Peer, Refusal};

/// The longest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What may wait in the kernel because a client reads slowly, bytes; what is on its way does not count.
const MAX_UNSENT_BYTES: u32 = 32 * 1024;
/// The pause after the system refused a connection (no more files).
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// What a connection beyond the limit is told before it ends.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 169\r\n\r\n\
{\"type\":\"urn:firstcome:problem:unavailable\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"unavailable\",\
\"detail\":\"too many connections; try again\",\"trace_id\":\"none\"}";

/// Serves until `stop`; returns once every connection has ended. An idle one ends at once, another with its answer.
pub(crate) async fn serve(listener: TcpListener, router: Router, edge: Edge, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(edge.settings().max_connections));
    let http = http(&edge);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                not_accepted(&error).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            edge.refused(Refusal::Connections);
            turn_away(&stream);
            continue;
        };
        if let Err(error) = prepare(&stream, edge.settings().write_within()) {
            tracing::debug!(%error, "a connection's options could not be set");
        }
        let connection = connection(http.clone(), stream, peer, router.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// An answer goes out at once; what a slow client has not taken does not pile up in the kernel; one that takes nothing for
/// so long is dropped, whether it is gone or has no room.
fn prepare(stream: &TcpStream, write_within: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(write_within))?;
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)
}

fn http(edge: &Edge) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(edge.settings().header_within())
        .max_buf_size(MAX_HEAD_BYTES);
    http
}

async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip()));
            let answer: Result<_, Infallible> = router.call(request).await;
            answer
        }
    });
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // The client went away, or was too slow, or spoke something else.
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
    }
}

async fn not_accepted(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused => {}
        _ => {
            tracing::warn!(%error, "a connection could not be taken");
            tokio::time::sleep(AFTER_REFUSAL).await;
        }
    }
}

/// Tells why and hangs up, without waiting for anything.
fn turn_away(stream: &TcpStream) {
    if let Err(error) = stream.try_write(FULL) {
        tracing::debug!(%error, "a connection too many could not be told so");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_too_many_is_told_is_a_whole_answer() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "unavailable");
    }
}
