//! Bugs planted on purpose, to see that the simulation finds them. Each is made where the real code meets the virtual
//! world: product code has no switch for them.

use domain_types::{Attempt, LineNumber, OrderId};
use messaging::owner::Transaction;
use messaging::{NextOffset, Output, Record};
use schemas::{
    Envelope, OrderSagaMessage, PaymentClosed, PaymentCommand, StockCommand, StockCommandKind, Topic,
};

use crate::database::Database;
use crate::world::{Shared, World, lock};

macro_rules! planted {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A deliberate break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Planted {
            $($(#[doc = $doc])* $name,)*
        }

        impl Planted {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The break in words.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*),)* }
            }
        }
    };
}

planted! {
    /// the log's first record is not remembered, so that a topic made anew is not noticed
    FirstRecordForgotten,
    /// an owner commits although another one has taken over
    NoEpochCheck,
    /// the position is moved behind the transaction, and may be lost
    PositionOutsideTransaction,
    /// a commit whose answer is lost is taken as committed
    LostCommitTakenAsCommitted,
    /// a commit whose answer is lost is taken as rolled back, and the batch is applied again
    LostCommitTakenAsAborted,
    /// outputs leave the outbox before they are published
    OutboxDeletedBeforePublishing,
    /// a successor does not publish its predecessor's outbox
    PredecessorsOutboxForgotten,
    /// what is cached stays after a rollback
    CacheKeptAfterRollback,
    /// a successor forgets which keys are parked
    ParkedKeyForgotten,
    /// a release before its reserve leaves no tombstone
    NoTombstone,
    /// a refused reserve is not remembered
    RefusalForgotten,
    /// a released hold is not marked as such
    ReleaseForgotten,
    /// one line's release is never sent
    ReleaseOfOneLineNotSent,
    /// older levels behind newer ones are not noticed
    LevelsNotWatched,
    /// replies to a replaced attempt count for the present one
    AttemptIgnored,
    /// a timer that fired early is not armed again
    TimerNotArmedAgain,
    /// an approval behind the deadline is not refunded
    LateApprovalNotRefunded,
    /// a charge closed before it was seen leaves no tombstone
    ClosedChargeForgotten,
    /// each charge call has a key of its own
    ChargeKeyPerCall,
    /// each refund call has a key of its own
    RefundKeyPerCall,
    /// "not found" is taken as declined
    NotFoundTakenAsDeclined,
    /// an unknown outcome is taken as declined
    UnknownTakenAsDeclined,
}

/// Header of messages that an old build can't read.
pub(crate) const NEWER: &str = "simulated-newer-version";

pub(crate) fn is_of_newer_version(record: &Record) -> bool {
    record.header(NEWER).is_some()
}

/// Breaks what a transaction publishes.
pub(crate) fn twist_outputs(bug: Planted, outputs: &mut Vec<Output>) {
    if bug == Planted::ReleaseOfOneLineNotSent {
        outputs.retain(|output| {
            output.topic() != Topic::StockCommands.name()
                || !Envelope::<StockCommand>::decode(output.value()).is_ok_and(|envelope| {
                    matches!(envelope.message, StockCommand::ReleaseStock(release) if release.line == LineNumber(1))
                })
        });
    }
}

/// Breaks what a record says; `None`: it is as it was.
pub(crate) fn twisted_input(bug: Planted, record: &Record, world: &Shared<World>) -> Option<Record> {
    if &*record.topic != Topic::OrderSaga.name() {
        return None;
    }
    let mut envelope = Envelope::<OrderSagaMessage>::decode(&record.value).ok()?;
    match bug {
        Planted::LateApprovalNotRefunded => {
            let OrderSagaMessage::PaymentApproved(_) = &envelope.message else { return None };
            let closing = latest_attempt(world, envelope.order_id?, SentKind::Close)?;
            envelope.message = PaymentClosed { attempt: closing }.into();
        }
        Planted::AttemptIgnored => {
            let order_id = envelope.order_id?;
            match &mut envelope.message {
                OrderSagaMessage::StockCommandFailed(failed) => {
                    failed.attempt =
                        latest_attempt(world, order_id, SentKind::Stock(failed.command, failed.line))?;
                }
                OrderSagaMessage::StockConfirmed(reply) => {
                    let kind = SentKind::Stock(StockCommandKind::Confirm, reply.line);
                    reply.attempt = latest_attempt(world, order_id, kind)?;
                }
                OrderSagaMessage::StockReleased(reply) => {
                    let kind = SentKind::Stock(StockCommandKind::Release, reply.line);
                    reply.attempt = latest_attempt(world, order_id, kind)?;
                }
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(Record { value: envelope.encode(), ..record.clone() })
}

#[derive(PartialEq)]
enum SentKind {
    Stock(StockCommandKind, LineNumber),
    Close,
}

/// The latest attempt that was sent, as the log shows it.
fn latest_attempt(world: &Shared<World>, order_id: OrderId, kind: SentKind) -> Option<Attempt> {
    let world = lock(world);
    let records = |topic: Topic| {
        let logs = world.logs.iter().filter(move |((of, _), _)| *of == topic);
        logs.flat_map(|(_, log)| log.records.iter())
    };
    match kind {
        SentKind::Close => records(Topic::PaymentCommands)
            .filter_map(|record| Envelope::<PaymentCommand>::decode(&record.value).ok())
            .filter(|envelope| envelope.order_id == Some(order_id))
            .filter_map(|envelope| match envelope.message {
                PaymentCommand::ClosePayment(close) => Some(close.attempt),
                PaymentCommand::ChargePayment(_) | PaymentCommand::RefundPayment(_) => None,
            })
            .max(),
        SentKind::Stock(..) => records(Topic::StockCommands)
            .filter_map(|record| Envelope::<StockCommand>::decode(&record.value).ok())
            .filter(|envelope| envelope.order_id == Some(order_id))
            .filter_map(|envelope| {
                let (command, line, attempt) = match envelope.message {
                    StockCommand::ReserveStock(sent) => (StockCommandKind::Reserve, sent.line, sent.attempt),
                    StockCommand::ConfirmStock(sent) => (StockCommandKind::Confirm, sent.line, sent.attempt),
                    StockCommand::ReleaseStock(sent) => (StockCommandKind::Release, sent.line, sent.attempt),
                    StockCommand::RestockStock(sent) => (StockCommandKind::Restock, sent.line, sent.attempt),
                    StockCommand::DefineProduct(_) | StockCommand::ChangeStock(_) => return None,
                };
                (kind == SentKind::Stock(command, line)).then_some(attempt)
            })
            .max(),
    }
}

/// Sometimes the position does not follow the state.
pub(crate) fn lose_position<T, I>(
    database: &Shared<Database<T>>,
    partition: i32,
    transaction: &Transaction<'_, I>,
    world: &Shared<World>,
) {
    let mut world = lock(world);
    let lost = world.mix.transient;
    if world.rng.per_mille(lost)
        && let Some(position) = lock(database).positions.get_mut(&partition)
        && position.stored.next == transaction.next
    {
        let expected: NextOffset = transaction.expected;
        position.stored.next = expected;
        world.tell(|| format!("PLANTED the position of {partition} stays at {}", expected.0));
    }
}
