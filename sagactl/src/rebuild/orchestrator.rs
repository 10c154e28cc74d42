//! The orchestrator's database: its own handler, driven by the log, its outputs dropped. No timer fires: those that fired are in
//! the log, the others are left to the owner that will take over.

use std::collections::HashMap;
use std::sync::Arc;

use domain_types::{OrderId, Timestamp};
use messaging::{
    Cluster, GroupPosition, Handler, LogReader, Outputs, Received, RecordedParkings, Tx, set_aside,
    set_outbox, set_position,
};
use order_orchestrator::{CONSUMER_GROUP, SagaHandler, SagaInput, SagaMetrics, SagaReader};
use schemas::Topic;
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::{Rebuilt, position, whole};
use crate::failure::Failure;
use crate::log::{Walk, recorded_parkings};
use crate::replay::{Chain, Place};
use crate::servers::Servers;

const BATCH: usize = 1_000;
const CACHED_SAGAS: usize = 100_000;
/// A clock that stands still before any timer is due, and late enough that every saga may be saved.
const STANDING: Timestamp = Timestamp::from_millis(0);
const SAVING: Timestamp = Timestamp::from_millis(60_000);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::away(format!("the database to build failed: {error}"))
}

pub(super) async fn rebuild(servers: &Servers, into: &PgPool, lost: bool) -> Result<Rebuilt, Failure> {
    order_orchestrator::migrate(into).await.map_err(failed)?;
    let mut live = if lost { Vec::new() } else { servers.sagas().await? };
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for snapshot in &mut live {
        let positions = snapshot.positions().await?;
        ends.extend(positions.into_iter().map(|position| (position.partition, position.next.0)));
    }
    let cluster = servers.cluster()?;
    let reading = cluster.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let reader = LogReader::new(&reading)?;
        let topic = Topic::OrderSaga.name();
        for partition in 0..reader.partitions(topic)? {
            let high = whole(&reader, topic, partition)?;
            if lost {
                ends.insert(partition, high);
            }
        }
        Ok::<_, Failure>((ends, recorded_parkings(&reader)?))
    });
    let (ends, mut recorded) = looked.await.map_err(failed)??;
    let registry = prometheus::Registry::new();
    let metrics = SagaMetrics::register(&registry).map_err(failed)?;
    let mut rebuilt = Rebuilt::default();
    let mut building = Vec::new();
    // What the lost database had committed and not published would never be.
    let mut unpublished = HashMap::new();
    if lost {
        let spans = ends.iter().map(|(partition, end)| (*partition, (0, *end))).collect();
        let place = Place { cluster: cluster.clone(), spans, since: None, recorded: recorded.clone() };
        unpublished = crate::replay::unpublished(&Arc::new(place)).await?;
    }
    for (partition, end) in ends {
        let recorded = recorded.remove(&partition).unwrap_or_default();
        let (cluster, into, metrics) = (cluster.clone(), into.clone(), metrics.clone());
        building.push(tokio::spawn(one_partition(cluster, into, metrics, partition, end, recorded)));
    }
    for partition in building {
        let (records, position) = partition.await.map_err(failed)??;
        rebuilt.records += records;
        let outputs = unpublished.remove(&position.partition).unwrap_or_default();
        rebuilt.to_publish += outputs.len() as u64;
        let mut connection = into.acquire().await.map_err(failed)?;
        set_outbox(&mut connection, &position, &outputs).await.map_err(failed)?;
    }
    if !lost {
        compare(&mut live, into, &mut rebuilt).await?;
    }
    Ok(rebuilt)
}

type Batch = Vec<Received<SagaInput>>;

async fn one_partition(
    cluster: Cluster,
    into: PgPool,
    metrics: SagaMetrics,
    partition: i32,
    end: i64,
    recorded: RecordedParkings,
) -> Result<(u64, GroupPosition), Failure> {
    let (batches, mut read) = mpsc::channel::<Batch>(4);
    let reading = tokio::task::spawn_blocking(move || {
        let reader = LogReader::new(&cluster)?;
        let topic = Topic::OrderSaga.name();
        let mut walk = Walk::of_sagas(recorded);
        let mut batch = Batch::new();
        reader.read(topic, partition, 0, end, |record| {
            walk.next(record, |record, input| batch.push(Received { record, input }));
            if batch.len() >= BATCH {
                let _builder_is_gone = batches.blocking_send(std::mem::take(&mut batch));
            }
        })?;
        let _builder_is_gone = batches.blocking_send(batch);
        let position = position(&reader, (CONSUMER_GROUP, topic, partition), end)?;
        Ok::<_, Failure>((position, walk.into_parked().collect::<Vec<_>>()))
    });
    let mut tx = Tx::open(&into).await.map_err(failed)?;
    let clock = || STANDING;
    let mut handler =
        SagaHandler::take_over(&mut tx, partition, CACHED_SAGAS, metrics, clock).await.map_err(failed)?;
    let mut records = 0;
    while let Some(batch) = read.recv().await {
        handler.handle(&mut tx, &batch, &mut Outputs::default()).await.map_err(failed)?;
        tx.finish().await.map_err(failed)?;
        Handler::<Tx>::committed(&mut handler);
        records += batch.len() as u64;
        if Handler::<Tx>::next_work(&handler) == Some(STANDING) {
            save(&mut handler, &mut tx).await?;
        }
    }
    while Handler::<Tx>::next_work(&handler).is_some_and(|at| at <= SAVING) {
        save(&mut handler, &mut tx).await?;
    }
    let (position, parked) = reading.await.map_err(failed)??;
    let writer = tx.writer().await.map_err(failed)?;
    for (key, record) in &parked {
        set_aside(writer, CONSUMER_GROUP, record, key, "set aside before the database was rebuilt")
            .await
            .map_err(failed)?;
    }
    set_position(writer, &position).await.map_err(failed)?;
    tx.finish().await.map_err(failed)?;
    Ok((records, position))
}

async fn save(handler: &mut SagaHandler, tx: &mut Tx) -> Result<(), Failure> {
    handler.work(tx, SAVING, &mut Outputs::default()).await.map_err(failed)?;
    tx.finish().await.map_err(failed)?;
    Handler::<Tx>::committed(handler);
    Ok(())
}

/// A saga and its history, each as one number.
#[derive(PartialEq, Eq, Default, Clone, Copy)]
struct Entry {
    saga: u64,
    chain: Chain,
}

async fn entries(snapshot: &mut SagaReader, all: &mut HashMap<OrderId, Entry>) -> Result<(), Failure> {
    for position in snapshot.positions().await? {
        let note = |present: order_orchestrator::PresentSaga| {
            let text = serde_json::to_string(&present.saga).unwrap_or_default();
            all.entry(present.order_id).or_default().saga = crate::replay::hash(&text);
        };
        snapshot.each_saga(position.partition, note).await?;
        let push = |entry: order_orchestrator::history::HistoryEntry| {
            let known = all.entry(entry.order_id).or_default();
            known.chain.push(entry.offset, &entry.rule, entry.now, &entry.events);
        };
        snapshot.each_entry(position.partition, push).await?;
    }
    Ok(())
}

async fn compare(live: &mut [SagaReader], into: &PgPool, rebuilt: &mut Rebuilt) -> Result<(), Failure> {
    let (mut was, mut is) = (HashMap::new(), HashMap::new());
    for snapshot in live {
        entries(snapshot, &mut was).await?;
    }
    entries(&mut SagaReader::open(into).await?, &mut is).await?;
    rebuilt.compare("sagas", was.len() as u64);
    rebuilt.compare("history entries", was.values().map(|entry| u64::from(entry.chain.entries)).sum());
    for (order_id, was) in &was {
        match is.remove(order_id) {
            None => rebuilt.differs(format!("order {order_id} is not in the log")),
            Some(is) if is.chain != was.chain => {
                rebuilt.differs(format!("order {order_id} has another history"))
            }
            Some(is) if is.saga != was.saga => {
                rebuilt.differs(format!("order {order_id} is in another state"))
            }
            Some(_same) => {}
        }
    }
    for order_id in is.keys() {
        rebuilt.differs(format!("order {order_id} is in the log and not in the live database"));
    }
    Ok(())
}
