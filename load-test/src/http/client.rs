//! Connections to an api's nodes: HTTP/1.1, one request at a time on each, and nothing that costs more than it must on
//! cores that the system needs itself.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What is asked.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// `Bearer TOKEN`
    pub(crate) authorization: Option<&'a HeaderValue>,
    /// JSON, or empty.
    pub(crate) body: Bytes,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Where what was made is.
    pub(crate) location: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// A connection that is made when it is first needed, and made anew when it broke.
pub(crate) struct Connection {
    address: String,
    host: HeaderValue,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// To `HOST:PORT`, later.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let host = HeaderValue::from_str(address).with_context(|| format!("{address:?} is no address"))?;
        Ok(Self { address: address.to_owned(), host, sender: None })
    }

    /// Asks, once. After an error nobody knows whether it was heard.
    pub(crate) async fn send(&mut self, call: Call<'_>) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.exchange(call)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.sender = None;
                Err(error)
            }
            Err(_elapsed) => {
                self.sender = None;
                anyhow::bail!("{} did not answer within {ANSWER_WITHIN:?}", self.address)
            }
        }
    }

    async fn exchange(&mut self, call: Call<'_>) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, self.host.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = call.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(call.body))?;
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            closed => closed.insert(connect(&self.address).await?),
        };
        sender.ready().await?;
        let mut answer = sender.send_request(request).await?;
        let location = answer.headers_mut().remove(header::LOCATION);
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(Answer { status, location, body })
    }
}

async fn connect(address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("{address} can't be reached"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender; what broke it is told to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// A problem's code, or nothing.
pub(crate) fn problem_code(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }
    serde_json::from_slice(body).map(|Problem { code }| code).unwrap_or_default()
}
