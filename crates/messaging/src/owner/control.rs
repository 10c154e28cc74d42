//! Control records: what operators decided about parked records.

use domain_types::{MessageId, Timestamp};
use schemas::{ControlMessage, Envelope, RedriveParked};

use super::{Failure, Observed, OutboxRow, Owner, Ports, Slot, Stepped, Transaction, Work};
use crate::{ErrorClass, Offset, Output, ParkingKey, Parsed, Received};

/// What a control record means here and now.
enum Settlement {
    /// Not for us, or nothing is left of it.
    Nothing,
    /// Apply these parked records, one of them perhaps with another value.
    Apply { key: ParkingKey, offsets: Vec<Offset>, replacement: Option<String> },
    /// Drop these parked records.
    Drop { key: ParkingKey, offsets: Vec<Offset> },
}

impl<P: Ports> Owner<P> {
    /// Settles the control record at the front of the queue.
    pub(super) async fn control(&mut self) -> Stepped {
        let Some(Slot { record, parsed: Parsed::Control(message) }) = self.queue.front() else {
            return Stepped::Progress;
        };
        let next = record.offset.next();
        let settlement = self.settlement(message);
        match settlement {
            Settlement::Nothing => {
                self.ports.observe(Observed::ControlIgnored);
                self.settle(next, &[], None, &[]).await
            }
            Settlement::Drop { key, offsets } => self.settle(next, &[], Some(&key), &offsets).await,
            Settlement::Apply { key, offsets, replacement } => {
                self.apply(next, &key, offsets, replacement).await
            }
        }
    }

    fn settlement(&self, message: &ControlMessage) -> Settlement {
        let Some(owned) = self.owned.as_ref() else { return Settlement::Nothing };
        let group = self.ports.group();
        let settlement = match message {
            ControlMessage::RedriveParked(redrive) if redrive.consumer_group == group => {
                let key = ParkingKey(redrive.parking_key.clone());
                let offsets = owned.parked.first_of(&key, &redrive.offsets);
                Settlement::Apply { key, offsets, replacement: None }
            }
            ControlMessage::ReplaceParked(replace) if replace.consumer_group == group => {
                let key = ParkingKey(replace.parking_key.clone());
                let offsets = owned.parked.first_of(&key, &[replace.offset]);
                Settlement::Apply { key, offsets, replacement: Some(replace.value.clone()) }
            }
            ControlMessage::DiscardParked(discard) if discard.consumer_group == group => {
                let key = ParkingKey(discard.parking_key.clone());
                let offsets = owned.parked.any_of(&key, &discard.offsets);
                Settlement::Drop { key, offsets }
            }
            ControlMessage::RedriveParked(_)
            | ControlMessage::ReplaceParked(_)
            | ControlMessage::DiscardParked(_) => Settlement::Nothing,
        };
        match settlement {
            Settlement::Apply { offsets, .. } | Settlement::Drop { offsets, .. } if offsets.is_empty() => {
                Settlement::Nothing
            }
            settlement => settlement,
        }
    }

    /// Applies parked records in order, with their original offset and time. Those before one that fails again are
    /// applied, that one and the rest stay parked.
    async fn apply(
        &mut self,
        next: crate::NextOffset,
        key: &ParkingKey,
        offsets: Vec<Offset>,
        replacement: Option<String>,
    ) -> Stepped {
        let mut records = match self.ports.parked(&offsets).await {
            Ok(records) => records,
            Err(failure) => return self.failed(failure),
        };
        if let (Some(value), Some(record)) = (replacement, records.first_mut()) {
            record.value = value.into_bytes();
        }
        let mut batch = Vec::new();
        for record in records {
            match self.ports.parse(&record) {
                Parsed::Input(input) => batch.push(Received { record, input }),
                Parsed::Control(_) | Parsed::Unreadable { .. } => break,
            }
        }
        let whole = batch.len() == offsets.len();
        batch.truncate(self.span.max(1));
        let done: Vec<Offset> = batch.iter().map(|received| received.record.offset).collect();
        let Some(position) = self.owned.as_ref().map(|owned| owned.next) else { return Stepped::Progress };
        let last = whole && done.len() == offsets.len();
        // With more to come the position stays, so that the rest is taken up again from this control record.
        let target = if last || batch.is_empty() { next } else { position };
        self.settle(target, &batch, Some(key), &done).await
    }

    /// One transaction that applies `batch`, unparks `offsets` and moves the position to `next`.
    async fn settle(
        &mut self,
        next: crate::NextOffset,
        batch: &[Received<P::Input>],
        key: Option<&ParkingKey>,
        offsets: &[Offset],
    ) -> Stepped {
        let Some(owned) = self.owned.as_ref() else { return Stepped::Progress };
        let transaction = Transaction {
            row: OutboxRow { epoch: owned.epoch, seq: owned.next_seq },
            expected: owned.next,
            next,
            work: if batch.is_empty() { Work::Nothing } else { Work::Records(batch) },
            park: &[],
            unpark: offsets,
            outputs: Vec::new(),
            done: owned.done,
            log_id: self.log_id(),
        };
        match self.ports.transact(transaction).await {
            Ok(outputs) => {
                self.span = self.span.saturating_mul(2).clamp(1, self.limits.batch_records);
                if let Some(owned) = self.owned.as_mut() {
                    if let Some(key) = key {
                        owned.parked.remove(key, offsets);
                        self.ports.observe(Observed::ParkedKeys(owned.parked.len()));
                    }
                    if next != owned.next {
                        owned.next = next;
                        self.ports.observe(Observed::Position(next));
                        self.queue.pop_front();
                    }
                }
                self.committed(outputs)
            }
            Err(Failure::RolledBack { class: ErrorClass::Permanent | ErrorClass::Bug, detail })
                if !batch.is_empty() =>
            {
                self.ports.observe(Observed::Retry);
                if batch.len() > 1 {
                    self.span = batch.len() / 2;
                    return Stepped::Progress;
                }
                tracing::warn!(detail, "a redriven record failed again; it stays parked");
                Box::pin(self.settle(self.after_front(), &[], None, &[])).await
            }
            Err(failure) => self.failed(failure),
        }
    }

    fn after_front(&self) -> crate::NextOffset {
        let front = self.queue.front().map(|slot| slot.record.offset.next());
        front.or(self.owned.as_ref().map(|owned| owned.next)).unwrap_or(crate::NextOffset(0))
    }

    /// A record that an older build did not know was parked; if this build knows it, it asks for the redrive itself.
    pub(super) async fn redrive_known(&mut self) -> Stepped {
        let Some(owned) = self.owned.as_mut() else { return Stepped::Progress };
        let look_at = std::mem::take(&mut owned.look_at);
        let heads: Vec<_> = owned
            .parked
            .heads()
            .filter(|(key, _, _)| look_at.contains(key))
            .map(|(key, first, offsets)| (key.clone(), first, offsets))
            .collect();
        let mut outputs = Vec::new();
        for (key, first, offsets) in heads {
            let records = match self.ports.parked(&[first]).await {
                Ok(records) => records,
                Err(failure) => {
                    if let Some(owned) = self.owned.as_mut() {
                        owned.look_at = look_at;
                    }
                    return self.failed(failure);
                }
            };
            let known = records.first().filter(|record| matches!(self.ports.parse(record), Parsed::Input(_)));
            if let Some(record) = known {
                outputs.extend(redrives(self.ports.group(), &key, &offsets, record));
            }
        }
        if outputs.is_empty() {
            return Stepped::Progress;
        }
        let Some(mut transaction) = self.transaction(Work::Nothing) else { return Stepped::Progress };
        transaction.outputs = outputs;
        match self.ports.transact(transaction).await {
            Ok(outputs) => self.committed(outputs),
            Err(failure) => {
                if let Some(owned) = self.owned.as_mut() {
                    owned.look_at = look_at;
                }
                self.failed(failure)
            }
        }
    }
}

/// Offsets that one control record names: it has to fit in one, however many are parked.
const OFFSETS_PER_REDRIVE: usize = 10_000;

fn redrives<'a>(
    group: &'a str,
    key: &'a ParkingKey,
    offsets: &'a [i64],
    record: &'a crate::Record,
) -> impl Iterator<Item = Output> + 'a {
    offsets.chunks(OFFSETS_PER_REDRIVE).map(move |offsets| redrive(group, key, offsets, record))
}

fn redrive(group: &str, key: &ParkingKey, offsets: &[i64], record: &crate::Record) -> Output {
    let first = offsets.first().copied().unwrap_or(record.offset.0);
    let cause = uuid::Uuid::new_v5(
        &uuid::Uuid::NAMESPACE_OID,
        format!("{group}/{}/{}/{}", record.topic, record.partition, first).as_bytes(),
    );
    let envelope = Envelope::<ControlMessage> {
        message_id: MessageId(cause),
        order_id: None,
        causation_id: None,
        occurred_at: Timestamp::from_millis(record.time.as_millis()),
        message: RedriveParked {
            consumer_group: group.to_owned(),
            parking_key: key.0.clone(),
            offsets: offsets.to_vec(),
            operator: group.to_owned(),
            reason: "this build knows the message".to_owned(),
        }
        .into(),
    };
    let mut output = Output::raw(record.topic.to_string(), "", envelope.encode()).control("RedriveParked");
    output.key.clone_from(&record.key);
    output.parking_key(&key.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn however_many_records_are_parked_each_redrive_fits_in_a_record() {
        let record = crate::Record {
            topic: "order-saga".into(),
            partition: 0,
            offset: Offset(9_000_000_000),
            time: Timestamp::from_millis(0),
            key: None,
            headers: Vec::new(),
            value: Vec::new(),
        };
        let offsets: Vec<i64> = (9_000_000_000..9_000_100_001).collect();
        let key = ParkingKey("k".repeat(1_024));
        let outputs: Vec<Output> = redrives("group", &key, &offsets, &record).collect();
        assert_eq!(outputs.len(), 11);
        assert!(outputs.iter().all(|output| output.size_bytes() < crate::Limits::default().output_bytes));
        let ids: std::collections::BTreeSet<_> = outputs
            .iter()
            .map(|output| Envelope::<ControlMessage>::decode(&output.value).unwrap().message_id)
            .collect();
        assert_eq!(ids.len(), 11, "each is a message of its own");
    }

    #[test]
    fn a_parking_key_that_is_too_long_to_be_named_is_replaced_by_a_name_made_of_it() {
        let record = |key: &str| crate::Record {
            topic: "order-saga".into(),
            partition: 0,
            offset: Offset(1),
            time: Timestamp::from_millis(0),
            key: Some(key.as_bytes().to_vec()),
            headers: Vec::new(),
            value: Vec::new(),
        };
        let long = "k".repeat(500_000);
        assert_eq!(record(&long).parking_key(), record(&long).parking_key());
        assert_ne!(record(&long).parking_key(), record(&format!("{long}x")).parking_key());
        assert!(record(&long).parking_key().0.len() < 100);
        assert_eq!(record("sku-1").parking_key().0, "sku-1");
    }
}
