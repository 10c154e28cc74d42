//! Redis with an append-only file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::StackError;
use crate::child::GuardedCommand;

/// What is needed to start Redis again and again.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
}

impl Redis {
    pub(crate) fn prepare(dir: &Path, port: u16) -> Result<Self, StackError> {
        let data = dir.join("redis");
        std::fs::create_dir_all(&data).map_err(StackError::io("make", &data))?;
        Ok(Self { port, dir: data })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn command(&self, log: &Path) -> GuardedCommand {
        let port = self.port.to_string();
        GuardedCommand::new("redis-server", log)
            .args(["--port", &port, "--bind", "127.0.0.1", "--dir"])
            .arg(&self.dir)
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"])
    }
}

/// Whether a Redis answers at `redis://[user:password@]HOST[:PORT]/...`; a demand for a password is an answer too.
pub(crate) async fn answers(url: &str) -> Result<(), String> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:6379") };
    if url.starts_with("rediss://") {
        // Whoever uses it speaks TLS; that it takes connections is known now.
        let connect = timeout(Duration::from_secs(2), TcpStream::connect(&address)).await;
        return connect
            .map_err(|_elapsed| "no connection".to_owned())?
            .map(drop)
            .map_err(|error| error.to_string());
    }
    timeout(Duration::from_secs(2), ping(&address))
        .await
        .map_err(|_elapsed| "no answer to PING".to_owned())?
}

async fn ping(address: &str) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.write_all(b"PING\r\n").await.map_err(|error| error.to_string())?;
    let mut answer = [0_u8; 64];
    let length = stream.read(&mut answer).await.map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).trim().to_owned();
    if answer.starts_with("+PONG") || answer.starts_with("-NOAUTH") { Ok(()) } else { Err(answer) }
}
