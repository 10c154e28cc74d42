//! One batch of submitted orders: snapshot, keep, publish, answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain_types::{CustomerId, MessageId, MoneyError, OrderId, Sku, Timestamp};
use messaging::{Output, crash_point};
use schemas::{Envelope, OrderSagaMessage, OrderedLine, PlaceOrder, Topic};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::store::{self, IntakeRow, PresentRow, Product};
use super::{Means, Outcome, Submission, Waiting, now};
use crate::notices::MailAddress;
use crate::orders::model::{Order, total};

/// How long the database may take before it counts as away; nothing is kept yet.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// How long the statement that keeps the orders may take; after that nobody knows whether it did.
const KEEP_WITHIN: Duration = Duration::from_secs(5);

/// An order that is ready to be kept.
struct Prepared {
    row: IntakeRow,
    order: Order,
    mail: Option<MailAddress>,
    traceparent: String,
    reply: oneshot::Sender<Outcome>,
}

/// An order to be published, and who waits for that.
struct Sending {
    order_id: OrderId,
    output: Output,
    waiting: Vec<(oneshot::Sender<Outcome>, Outcome)>,
}

/// Takes a batch through; returns once it is kept. Publishing goes on as a task of `publishing`.
pub(super) async fn take(means: &Arc<Means>, batch: Vec<Waiting>, publishing: &TaskTracker) {
    means.metrics.batch.observe(batch.len() as f64);
    let skus: HashSet<&str> = batch
        .iter()
        .flat_map(|waiting| &waiting.submission.order.lines)
        .map(|(sku, _)| sku.as_str())
        .collect();
    let skus: Vec<&str> = skus.into_iter().collect();
    let reading = tokio::time::timeout(READ_WITHIN, store::products(&means.pool, &skus));
    let (reachable, products) = tokio::join!(means.publisher.reachable(), reading);
    let products = match products {
        Ok(Ok(products)) => products,
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "orders turned away: the database failed"
            );
            return answer_all(means, batch, || Outcome::Unavailable("the database"));
        }
        Err(_elapsed) => return answer_all(means, batch, || Outcome::Unavailable("the database")),
    };
    let (prepared, refused) = prepare(means, batch, &products, reachable.is_err());
    let sending = keep(means, prepared, refused).await;
    if !sending.is_empty() {
        let means = Arc::clone(means);
        publishing.spawn(async move { publish(&means, sending).await });
    }
}

fn answer_all(means: &Means, batch: Vec<Waiting>, outcome: impl Fn() -> Outcome) {
    for waiting in batch {
        answer(means, waiting.reply, outcome());
    }
}

fn answer(means: &Means, reply: oneshot::Sender<Outcome>, outcome: Outcome) {
    means.metrics.outcomes.with_label_values(&[outcome.label()]).inc();
    let _client_hung_up = reply.send(outcome);
}

/// A submission that can't become a new order; it may still be the repeat of one.
struct Refused {
    submission: Submission,
    reply: oneshot::Sender<Outcome>,
    outcome: Outcome,
}

fn prepare(
    means: &Means,
    batch: Vec<Waiting>,
    products: &HashMap<Sku, Product>,
    kafka_away: bool,
) -> (Vec<Prepared>, Vec<Refused>) {
    let at = now();
    let mut prepared = Vec::with_capacity(batch.len());
    let mut refused = Vec::new();
    for Waiting { submission, reply } in batch {
        let made = if kafka_away {
            Err(Outcome::Unavailable("kafka"))
        } else {
            match &submission.refused {
                Some(refusal) => Err(Outcome::Refused(refusal.clone())),
                None => new_order(means, &submission, products, at),
            }
        };
        match made {
            Ok((row, order)) => {
                let Submission { mail, traceparent, .. } = submission;
                prepared.push(Prepared { row, order, mail, traceparent, reply });
            }
            Err(outcome) => refused.push(Refused { submission, reply, outcome }),
        }
    }
    (prepared, refused)
}

/// The order with the catalogue's data as it stands now, and its row.
fn new_order(
    means: &Means,
    submission: &Submission,
    products: &HashMap<Sku, Product>,
    at: Timestamp,
) -> Result<(IntakeRow, Order), Outcome> {
    let mut lines = Vec::with_capacity(submission.order.lines.len());
    let mut unknown = Vec::new();
    for (sku, quantity) in &submission.order.lines {
        match products.get(sku) {
            Some(product) => lines.push(OrderedLine {
                sku: sku.clone(),
                name: product.name.clone(),
                option: product.option.clone(),
                unit_price: product.price,
                quantity: *quantity,
                product_version: product.product_version,
                ticket: submission.tickets.get(sku).copied(),
            }),
            None => unknown.push(sku.clone()),
        }
    }
    if !unknown.is_empty() {
        return Err(Outcome::UnknownSkus(unknown));
    }
    total(&lines).map_err(|error| match error {
        MoneyError::Overflow => Outcome::TotalOverflow,
        MoneyError::CurrencyMismatch => Outcome::MixedCurrencies,
    })?;
    let publish_before = at.plus(means.publish_within);
    let command = PlaceOrder {
        customer_id: submission.customer_id,
        lines,
        payment_method: submission.order.method.clone(),
        fingerprint: submission.fingerprint.clone(),
        publish_before,
        policy: Some(means.policy),
        definition: means.saga_definition,
    };
    let order =
        Order::accepted(submission.order_id, &command, at).map_err(|_overflow| Outcome::TotalOverflow)?;
    let envelope = Envelope {
        message_id: MessageId(Uuid::now_v7()),
        order_id: Some(submission.order_id),
        causation_id: None,
        occurred_at: at,
        message: OrderSagaMessage::PlaceOrder(command),
    };
    let command = String::from_utf8(envelope.encode()).map_err(|_json_is_utf8| Outcome::TotalOverflow)?;
    let row = IntakeRow {
        order_id: submission.order_id,
        customer_id: submission.customer_id,
        fingerprint: submission.fingerprint.clone(),
        publish_before,
        command,
    };
    Ok((row, order))
}

/// Keeps the new ones, compares the others with what is there. Returns what has to be published.
async fn keep(means: &Means, prepared: Vec<Prepared>, refused: Vec<Refused>) -> Vec<Sending> {
    let mut first = Vec::with_capacity(prepared.len());
    let mut repeats = Vec::new();
    let mut seen = HashSet::with_capacity(prepared.len());
    for prepared in prepared {
        if seen.insert(prepared.row.order_id) {
            first.push(prepared);
        } else {
            repeats.push(Repeat::of(prepared));
        }
    }
    let mut sending = Vec::with_capacity(first.len());
    if !first.is_empty() {
        let rows: Vec<IntakeRow> = first.iter().map(|prepared| prepared.row.clone()).collect();
        let mails = first.iter().filter(|_| means.tells_by_mail);
        let mails: Vec<_> =
            mails.filter_map(|prepared| Some((prepared.row.order_id, prepared.mail.as_ref()?))).collect();
        match insert(means, &rows, &mails).await {
            Ok(inserted) => {
                for prepared in first {
                    if inserted.contains(&prepared.row.order_id) {
                        sending.push(Sending::of(prepared));
                    } else {
                        repeats.push(Repeat::of(prepared));
                    }
                }
            }
            Err(failure) => {
                first.into_iter().for_each(|prepared| answer(means, prepared.reply, failure.outcome()));
            }
        }
    }
    for Refused { submission, reply, outcome } in refused {
        if submission.keyed {
            let Submission { order_id, customer_id, fingerprint, traceparent, .. } = submission;
            repeats.push(Repeat {
                order_id,
                customer_id,
                fingerprint,
                traceparent,
                reply,
                otherwise: outcome,
            });
        } else {
            answer(means, reply, outcome);
        }
    }
    if !repeats.is_empty() {
        compare(means, repeats, &mut sending).await;
    }
    sending
}

/// What a failed `INSERT` leaves behind.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// Nothing.
    NotKept,
    /// Perhaps the rows; then they are published once their `publish_before` has passed.
    PerhapsKept,
}

impl Failure {
    fn of(error: &sqlx::Error) -> Self {
        let no_connection = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
        // The server refused the statement; but what ends a session (57) may come behind its commit.
        let refused = error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| !code.starts_with("57"));
        if no_connection || refused { Self::NotKept } else { Self::PerhapsKept }
    }

    const fn outcome(self) -> Outcome {
        match self {
            Self::NotKept => Outcome::Unavailable("the database"),
            Self::PerhapsKept => Outcome::Unknown,
        }
    }
}

async fn insert(
    means: &Means,
    rows: &[IntakeRow],
    mails: &[(OrderId, &MailAddress)],
) -> Result<HashSet<OrderId>, Failure> {
    match tokio::time::timeout(KEEP_WITHIN, store::insert(&means.pool, rows, mails)).await {
        Ok(Ok(inserted)) => Ok(inserted),
        Ok(Err(error)) => {
            let failure = Failure::of(&error);
            tracing::warn!(error = &error as &dyn std::error::Error, ?failure, "orders could not be kept");
            Err(failure)
        }
        Err(_elapsed) => Err(Failure::PerhapsKept),
    }
}

/// A submission whose order is there already, or else ends with `otherwise`.
struct Repeat {
    order_id: OrderId,
    customer_id: CustomerId,
    fingerprint: String,
    traceparent: String,
    reply: oneshot::Sender<Outcome>,
    otherwise: Outcome,
}

impl Repeat {
    fn of(prepared: Prepared) -> Self {
        Self {
            order_id: prepared.row.order_id,
            customer_id: prepared.row.customer_id,
            fingerprint: prepared.row.fingerprint,
            traceparent: prepared.traceparent,
            reply: prepared.reply,
            otherwise: Outcome::Unknown,
        }
    }
}

impl Sending {
    fn of(prepared: Prepared) -> Self {
        let output = output(&prepared.row, &prepared.traceparent);
        let accepted = Outcome::Accepted(Box::new(prepared.order));
        Self { order_id: prepared.row.order_id, output, waiting: vec![(prepared.reply, accepted)] }
    }
}

/// The row's command, byte for byte as it was kept.
pub(super) fn output(row: &IntakeRow, traceparent: &str) -> Output {
    Output::raw(Topic::OrderSaga.name(), row.order_id.to_string(), row.command.clone().into_bytes())
        .traceparent(Some(traceparent))
}

/// Answers repeats by the row that is there; those that nobody acknowledged are published again.
async fn compare(means: &Means, repeats: Vec<Repeat>, sending: &mut Vec<Sending>) {
    let ids: Vec<OrderId> = repeats.iter().map(|repeat| repeat.order_id).collect();
    let present = match tokio::time::timeout(READ_WITHIN, store::present(&means.pool, &ids)).await {
        Ok(Ok(present)) => present,
        Ok(Err(_)) | Err(_) => {
            for repeat in repeats {
                answer(means, repeat.reply, Outcome::Unknown);
            }
            return;
        }
    };
    for repeat in repeats {
        match present.get(&repeat.order_id) {
            None => answer(means, repeat.reply, repeat.otherwise),
            Some(there) if !there.is_same(&repeat) => answer(means, repeat.reply, Outcome::KeyReused),
            Some(there) if there.in_log => answer(means, repeat.reply, Outcome::Repeated),
            Some(there) => send_again(there, repeat, sending),
        }
    }
}

impl PresentRow {
    fn is_same(&self, repeat: &Repeat) -> bool {
        self.row.fingerprint == repeat.fingerprint && self.row.customer_id == repeat.customer_id
    }
}

fn send_again(there: &PresentRow, repeat: Repeat, sending: &mut Vec<Sending>) {
    let waiting = (repeat.reply, Outcome::Repeated);
    match sending.iter_mut().find(|sending| sending.order_id == repeat.order_id) {
        Some(under_way) => under_way.waiting.push(waiting),
        None => sending.push(Sending {
            order_id: repeat.order_id,
            output: output(&there.row, &repeat.traceparent),
            waiting: vec![waiting],
        }),
    }
}

/// Publishes and answers. The requests have stopped waiting long before the producer gives up.
async fn publish(means: &Means, sending: Vec<Sending>) {
    let mut outputs = Vec::with_capacity(sending.len());
    let mut waiting = Vec::with_capacity(sending.len());
    for Sending { order_id, output, waiting: clients } in sending {
        outputs.push(output);
        waiting.push((order_id, clients));
    }
    crash_point("api", "order-kept");
    let published = means.publisher.publish(&outputs).await;
    crash_point("api", "order-published");
    if let Err(error) = &published {
        tracing::warn!(
            orders = outputs.len(),
            error = error as &dyn std::error::Error,
            "orders not acknowledged"
        );
    }
    for (order_id, clients) in waiting {
        if published.is_ok() {
            // Full: then a repeat publishes once more, which changes nothing.
            let _lazily = means.acknowledged.try_send(order_id);
        }
        for (reply, outcome) in clients {
            answer(means, reply, if published.is_ok() { outcome } else { Outcome::Unknown });
        }
    }
}
