//! Single things: a flush to the disk, a thread that is woken, an acknowledged produce.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use kafka_cluster::Cluster;

use crate::kafka::{OwnTopics, Produced, Producer};
use crate::latency::Latency;

/// What is written before each flush: about a commit of one row.
const WRITTEN_BYTES: usize = 512;
/// Before each byte that is handed over: long enough for a core to fall asleep.
const PAUSE: Duration = Duration::from_millis(1);
/// Those that come before what counts.
const WARM_UP: usize = 100;

/// `fdatasync` after each of `count` appended blocks, in a file in that folder which is removed afterwards.
pub(crate) fn flushes(folder: &Path, count: usize) -> anyhow::Result<Latency> {
    let path = folder.join(format!("load-test-{}.flush", std::process::id()));
    let measured = write(&path, count).with_context(|| format!("cannot write {}", path.display()));
    std::fs::remove_file(&path).ok();
    measured
}

fn write(path: &Path, count: usize) -> std::io::Result<Latency> {
    let (mut file, mut latency) = (File::create(path)?, Latency::default());
    for number in 0..WARM_UP + count {
        file.write_all(&[b'.'; WRITTEN_BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        if number >= WARM_UP {
            latency.record(begun.elapsed());
        }
    }
    Ok(latency)
}

/// A byte that goes to another thread through a socket: half of its way there and back. Both had nothing to do before, as with an order
/// that is alone.
pub(crate) fn hand_overs(count: usize) -> anyhow::Result<Latency> {
    let (mut here, mut there) = UnixStream::pair()?;
    let other = std::thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while there.read(&mut byte)? > 0 {
            there.write_all(&byte)?;
        }
        Ok(())
    });
    let (mut byte, mut latency) = ([0], Latency::default());
    for number in 0..WARM_UP + count {
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        here.write_all(&byte)?;
        here.read_exact(&mut byte)?;
        if number >= WARM_UP {
            latency.record(begun.elapsed() / 2);
        }
    }
    drop(here);
    other.join().map_err(|_panic| anyhow::anyhow!("the other thread panicked"))??;
    Ok(latency)
}

/// One record after the other, each acknowledged by the broker, in a topic of its own.
pub(crate) async fn produces(cluster: &Cluster, count: usize) -> anyhow::Result<Latency> {
    let topics = OwnTopics::make(cluster, &["single"], 1).await?;
    let (producer, topic) = (Producer::new(cluster)?, topics.name(0)?.to_owned());
    let measured = tokio::task::spawn_blocking(move || {
        let mut latency = Latency::default();
        for number in 0..WARM_UP + count {
            let begun = Instant::now();
            producer.produce(&[Produced { topic: &topic, partition: 0, payload: &[b'.'; WRITTEN_BYTES] }])?;
            if number >= WARM_UP {
                latency.record(begun.elapsed());
            }
        }
        Ok::<_, anyhow::Error>(latency)
    });
    let latency = measured.await?;
    topics.remove().await?;
    latency
}
