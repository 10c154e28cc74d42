//! The api's database.

use std::collections::HashMap;

use api::rebuild::{Builder, Table, entries, migrate};
use messaging::{Cluster, GroupPosition, LogReader, Record, RecordedParkings, set_position};
use schemas::{Envelope, OrderEvent, StockEvent, StockLevelMessage, Topic};
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::{Rebuilt, position, whole};
use crate::failure::Failure;
use crate::log::{Walk, parkings_of};
use crate::servers::Servers;

const BATCH: usize = 1_000;
/// What each consumer of the api reads; its group is named after it and a setting. The last two keep no state in the database: they go on where the others are.
const CONSUMERS: [(&str, Topic); 5] = [
    ("order-events", Topic::OrderEvents),
    ("stock-levels", Topic::StockLevels),
    ("stock-events", Topic::StockEvents),
    ("admission", Topic::OrderEvents),
    ("notices", Topic::OrderEvents),
];
const BUILDING: usize = 3;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::away(format!("the database to build failed: {error}"))
}

fn away(error: impl std::fmt::Display) -> Failure {
    Failure::away(format!("the api's database failed: {error}"))
}

pub(super) async fn rebuild(
    servers: &Servers,
    into: &PgPool,
    lost: bool,
    consumer_group: Option<String>,
) -> Result<Rebuilt, Failure> {
    migrate(into).await.map_err(failed)?;
    let mut live = None;
    let mut positions = Vec::new();
    if !lost {
        let pools = servers.databases("api").await?;
        let pool = pools.first().ok_or_else(|| Failure::usage("there is no database of api"))?;
        let mut snapshot = messaging::snapshot(pool).await.map_err(away)?;
        positions = messaging::positions(&mut snapshot).await.map_err(away)?;
        live = Some(snapshot);
    }
    let cluster = servers.cluster()?;
    let (records, mut read) = mpsc::channel::<(Topic, Vec<Record>)>(4);
    let reading = tokio::task::spawn_blocking(move || {
        read_all(&cluster, &positions, consumer_group.as_deref(), &records)
    });
    let mut builder = Builder::new(into.clone());
    let mut rebuilt = Rebuilt::default();
    while let Some((topic, records)) = read.recv().await {
        rebuilt.records += records.len() as u64;
        builder.apply(topic, records).await.map_err(failed)?;
    }
    let positions = reading.await.map_err(failed)??;
    let mut tx = messaging::begin(into).await.map_err(failed)?;
    for position in &positions {
        set_position(&mut tx, position).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)?;
    if let Some(mut live) = live {
        let mut built = into.acquire().await.map_err(failed)?;
        for table in Table::ALL {
            let was = entries(&mut live, table).await.map_err(away)?;
            let is = entries(&mut built, table).await.map_err(failed)?;
            compare(table, &was, is, &mut rebuilt);
        }
    }
    Ok(rebuilt)
}

/// Hands out everything that the api's state is made of; returns where its consumers then stand.
fn read_all(
    cluster: &Cluster,
    live: &[GroupPosition],
    consumer_group: Option<&str>,
    records: &mpsc::Sender<(Topic, Vec<Record>)>,
) -> Result<Vec<GroupPosition>, Failure> {
    let reader = LogReader::new(cluster)?;
    let mut positions = Vec::new();
    for (index, (consumer, topic)) in CONSUMERS.into_iter().enumerate() {
        let named = |name: &str| format!("{name}-{consumer}");
        let group = &*consumer_group.map_or_else(|| auditor::api_group(live, consumer), named);
        let mut recorded = parkings_of(&reader, group, topic)?;
        for partition in 0..reader.partitions(topic.name())? {
            let high = if topic.is_compacted() {
                reader.bounds(topic.name(), partition)?.1
            } else {
                whole(&reader, topic.name(), partition)?
            };
            let known = live.iter().find(|position| {
                (position.group.as_str(), position.topic.as_str(), position.partition)
                    == (group, topic.name(), partition)
            });
            let to = known.map_or(high, |position| position.next.0);
            if index < BUILDING {
                let walk = Walk::new(group, recorded.remove(&partition).unwrap_or_default(), readable(topic));
                read(&reader, topic, (partition, to), walk, records)?;
            }
            positions.push(position(&reader, (group, topic.name(), partition), to)?);
        }
    }
    let orders = Topic::OrderSaga;
    for partition in 0..reader.partitions(orders.name())? {
        let high = whole(&reader, orders.name(), partition)?;
        let walk = Walk::new("api", RecordedParkings::new(), |_record| Some(()));
        read(&reader, orders, (partition, high), walk, records)?;
    }
    Ok(positions)
}

fn readable(topic: Topic) -> fn(&Record) -> Option<()> {
    match topic {
        Topic::OrderEvents => |record| Envelope::<OrderEvent>::decode(&record.value).ok().map(drop),
        Topic::StockEvents => |record| Envelope::<StockEvent>::decode(&record.value).ok().map(drop),
        _ => |record| Envelope::<StockLevelMessage>::decode(&record.value).ok().map(drop),
    }
}

fn read(
    reader: &LogReader,
    topic: Topic,
    (partition, to): (i32, i64),
    mut walk: Walk<()>,
    records: &mpsc::Sender<(Topic, Vec<Record>)>,
) -> Result<(), Failure> {
    let (low, _) = reader.bounds(topic.name(), partition)?;
    let mut batch = Vec::new();
    reader.read(topic.name(), partition, low, to, |record| {
        walk.next(record, |record, ()| batch.push(record));
        if batch.len() >= BATCH {
            let _builder_is_gone = records.blocking_send((topic, std::mem::take(&mut batch)));
        }
    })?;
    let _builder_is_gone = records.blocking_send((topic, batch));
    Ok(())
}

fn compare(table: Table, was: &HashMap<String, i64>, mut is: HashMap<String, i64>, rebuilt: &mut Rebuilt) {
    let name = table.name();
    rebuilt.compare(name, was.len() as u64);
    for (key, was) in was {
        match is.remove(key) {
            None => rebuilt.differs(format!("{name} {key} is in no topic")),
            Some(is) if is != *was => rebuilt.differs(format!("{name} {key} is another one")),
            Some(_same) => {}
        }
    }
    // Orders that others put straight onto the topic were never taken over HTTP.
    is.retain(|_, _| table != Table::Intake);
    for key in is.keys() {
        rebuilt.differs(format!("{name} {key} is in the topics and not in the live database"));
    }
}
