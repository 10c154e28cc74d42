//! The owner of one partition of `order-events` that tells: mails become rows with the events, and are sent from the rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Tx, Waker};
use schemas::{DecodeError, Envelope, OrderEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::mailer::{Mailer, Sent};
use super::store::{self, Mail, MailKey, Notice};
use super::wording::wording;

/// Mails of a partition that are in memory.
const IN_HAND: usize = 200;
/// First pause after a mail was not taken; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A mail that was not taken so often is given up: more than three days.
const MOST_TRIES: i32 = 900;

/// Makes the handler of a partition of `order-events`.
pub(crate) struct Notices {
    pub(crate) mailer: Arc<Mailer>,
}

/// See the module.
pub(crate) struct NoticesHandler {
    partition: i32,
    mailer: Arc<Mailer>,
    waker: Waker,
    in_hand: HashMap<MailKey, i32>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(MailKey, Sent)>,
    receiver: mpsc::Receiver<(MailKey, Sent)>,
    /// Answers that are not committed yet.
    answers: Vec<(MailKey, Sent)>,
    /// When rows are looked at next.
    look_at: Option<Timestamp>,
    staged: Staged,
}

/// What the transaction in hand does.
#[derive(Debug, Default)]
struct Staged {
    answers: usize,
    mails: Vec<Mail>,
    look_at: Option<Option<Timestamp>>,
}

impl HandlerFactory for Notices {
    type Handler = NoticesHandler;

    async fn take_over(&self, ownership: Ownership) -> Result<NoticesHandler, HandlerError> {
        let (sender, receiver) = mpsc::channel(IN_HAND);
        Ok(NoticesHandler {
            partition: ownership.partition,
            mailer: Arc::clone(&self.mailer),
            waker: ownership.waker,
            in_hand: HashMap::new(),
            tasks: JoinSet::new(),
            sender,
            receiver,
            answers: Vec::new(),
            // The predecessor's mails, whose answers nobody has seen.
            look_at: Some(Timestamp::from_millis(0)),
            staged: Staged::default(),
        })
    }
}

impl Handler for NoticesHandler {
    /// The order, of an event that may be told; it is decoded once somebody is to hear of it.
    type Input = Option<OrderId>;

    /// Most events are none of its business; one that is unreadable is the projection's to park.
    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        let has = |part: &str| memchr::memmem::find(&record.value, part.as_bytes()).is_some();
        let matters = has("\"payment\"") || has("\"final\":true");
        Ok(record.key_str().filter(|_| matters).and_then(|key| key.parse().ok()))
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        self.staged = Staged::default();
        // Few customers leave an address: nothing is read or written for the others.
        let orders = batch.iter().filter_map(|received| received.input).collect();
        let addressed = store::addressed(tx.reader().await?, orders).await?;
        let theirs = batch.iter().filter(|received| received.input.is_some_and(|id| addressed.contains(&id)));
        let (mut notices, mut ended) = (Vec::new(), Vec::new());
        for envelope in theirs.filter_map(|received| Envelope::decode(&received.record.value).ok()) {
            let Some(order_id) = envelope.order_id else { continue };
            let (version, is_final) = match &envelope.message {
                OrderEvent::OrderPlaced(event) => (event.version, event.is_final),
                OrderEvent::OrderChanged(event) => (event.version, event.is_final),
            };
            if let OrderEvent::OrderChanged(event) = &envelope.message
                && let Some(wording) = wording(order_id, event)
            {
                let key = MailKey { order_id, version };
                notices.push(Notice { key, message_id: envelope.message_id, wording });
            }
            if is_final {
                ended.push(order_id);
            }
        }
        if !notices.is_empty() || !ended.is_empty() {
            let writer = tx.writer().await?;
            store::add(writer, self.partition, &notices).await?;
            store::forget(writer, &ended).await?;
        }
        if !notices.is_empty() {
            self.staged.look_at = Some(Some(Timestamp::from_millis(0)));
        }
        Ok(())
    }

    fn next_work(&self) -> Option<Timestamp> {
        if !self.answers.is_empty() || !self.receiver.is_empty() {
            return Some(Timestamp::from_millis(0));
        }
        self.look_at.filter(|_| self.has_room())
    }

    async fn work(
        &mut self,
        tx: &mut Tx,
        now: Timestamp,
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        self.staged = Staged::default();
        while let Ok(answer) = self.receiver.try_recv() {
            self.answers.push(answer);
        }
        let (mut settled, mut put_off) = (Vec::new(), Vec::new());
        for (key, sent) in &self.answers {
            let tries = self.in_hand.get(key).copied().unwrap_or(0);
            match sent {
                Sent::Taken | Sent::Refused => settled.push(*key),
                Sent::NotNow if tries >= MOST_TRIES => {
                    tracing::error!(order_id = %key.order_id, tries, "a mail is given up");
                    settled.push(*key);
                }
                Sent::NotNow => put_off.push((*key, now.plus(pause(tries)))),
            }
        }
        if !settled.is_empty() || !put_off.is_empty() {
            let writer = tx.writer().await?;
            store::settle(writer, self.partition, &settled).await?;
            store::put_off(writer, self.partition, &put_off).await?;
        }
        self.staged.answers = self.answers.len();
        if self.look_at.is_some_and(|at| at <= now) && self.has_room() {
            let in_hand: Vec<MailKey> = self.in_hand.keys().copied().collect();
            let room = i64::try_from(IN_HAND - self.in_hand.len()).unwrap_or(0);
            self.staged.mails = store::due(tx.reader().await?, self.partition, now, &in_hand, room).await?;
        }
        let full = self.staged.mails.len() + self.in_hand.len() >= IN_HAND;
        let next = store::next_after(tx.reader().await?, self.partition, now).await?;
        self.staged.look_at = Some(if full { Some(now) } else { next });
        Ok(())
    }

    fn committed(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        for (key, _) in self.answers.drain(..staged.answers) {
            self.in_hand.remove(&key);
        }
        if let Some(look_at) = staged.look_at {
            self.look_at = look_at;
        }
        for mail in staged.mails {
            self.send(mail);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn rolled_back(&mut self) {
        self.staged = Staged::default();
    }
}

impl NoticesHandler {
    fn has_room(&self) -> bool {
        self.in_hand.len() <= IN_HAND / 2
    }

    fn send(&mut self, mail: Mail) {
        self.in_hand.insert(mail.key, mail.tries);
        let (mailer, sender, waker) = (Arc::clone(&self.mailer), self.sender.clone(), self.waker.clone());
        self.tasks.spawn(async move {
            let sent = mailer.send(&mail).await;
            if sender.send((mail.key, sent)).await.is_ok() {
                waker.wake();
            }
        });
    }
}

fn pause(tries: i32) -> Duration {
    let doublings = u32::try_from(tries).unwrap_or(0).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}
