//! Batches: which records go into the next transaction, and how a culprit is found.

use super::{Failure, Owner, Ports, Slot, Stepped, Transaction, Work};
use crate::owner::{Observed, OutboxRow};
use crate::parking::{ParkedKeys, Parking};
use crate::{ErrorClass, NextOffset, Offset, Parsed, Received};

/// The records of one transaction, in offset order within each list.
struct Plan<I> {
    handle: Vec<Received<I>>,
    park: Vec<Parking>,
    /// What the parked slots said, to put them back after a rollback.
    parked_slots: Vec<Slot<I>>,
    next: NextOffset,
}

impl<P: Ports> Owner<P> {
    /// One transaction with the records at the front of the queue, or one control record.
    pub(super) async fn batch(&mut self) -> Stepped {
        if self.queue.front().is_some_and(|slot| matches!(slot.parsed, Parsed::Control(_))) {
            return self.control().await;
        }
        let log_id = self.log_id();
        let Some(plan) = self.plan() else { return Stepped::Progress };
        if plan.handle.is_empty() && plan.park.is_empty() && !self.queue.is_empty() {
            return self.stand_still();
        }
        let Some(owned) = self.owned.as_ref() else { return Stepped::Progress };
        let transaction = Transaction {
            row: OutboxRow { epoch: owned.epoch, seq: owned.next_seq },
            expected: owned.next,
            next: plan.next,
            work: if plan.handle.is_empty() { Work::Nothing } else { Work::Records(&plan.handle) },
            park: &plan.park,
            unpark: &[],
            outputs: Vec::new(),
            done: owned.done,
            log_id,
        };
        match self.ports.transact(transaction).await {
            Ok(outputs) => {
                self.batch_committed(&plan);
                self.committed(outputs)
            }
            Err(failure) => self.batch_failed(plan, failure),
        }
    }

    /// Takes records off the queue, until the span or the bytes are used up or a control record comes.
    fn plan(&mut self) -> Option<Plan<P::Input>> {
        let mut plan = Plan {
            handle: Vec::with_capacity(self.queue.len().min(self.span)),
            park: Vec::new(),
            parked_slots: Vec::new(),
            next: self.owned.as_ref()?.next,
        };
        let mut newly_parked = ParkedKeys::default();
        let mut bytes = 0;
        while let Some(slot) = self.queue.front() {
            bytes += slot.record.size_bytes();
            let full = plan.handle.len() >= self.span
                || plan.park.len() >= self.limits.batch_records
                || (bytes > self.limits.batch_bytes && !(plan.handle.is_empty() && plan.park.is_empty()));
            if full || matches!(slot.parsed, Parsed::Control(_)) {
                break;
            }
            let cause = self.park_cause(slot, &newly_parked);
            if cause.is_some() && self.has_no_room(newly_parked.records()) {
                break;
            }
            let Some(slot) = self.queue.pop_front() else { break };
            plan.next = slot.record.offset.next();
            match (cause, slot) {
                (Some((cause, detail)), slot) => {
                    let key = self.key_of(&slot);
                    if self.ports.is_contiguous() {
                        newly_parked.add(key.clone(), slot.record.offset);
                    }
                    plan.park.push(Parking { record: slot.record.clone(), key, cause, detail });
                    plan.parked_slots.push(slot);
                }
                (None, Slot { record, parsed: Parsed::Input(input) }) => {
                    plan.handle.push(Received { record, input });
                }
                // Unreadable slots always have a cause, control records end the loop.
                (None, slot) => {
                    self.queue.push_front(slot);
                    break;
                }
            }
        }
        Some(plan)
    }

    /// Whether as many records are set aside as may be, `more` among them. Of a compacted log nothing is.
    fn has_no_room(&self, more: usize) -> bool {
        let parked = self.owned.as_ref().map_or(0, |owned| owned.parked.records());
        self.ports.is_contiguous() && parked + more >= self.limits.parked_records
    }

    /// The next record would be one too many: nothing moves until a build comes that can handle it, or more may be set aside.
    fn stand_still(&mut self) -> Stepped {
        let detail = format!(
            "{} records are set aside, as many as may be (parked_records): the next one can't be handled either, so the partition \
             stands still until another build or a higher limit comes",
            self.limits.parked_records
        );
        self.failed(Failure::RolledBack { class: ErrorClass::Permanent, detail })
    }

    /// A recorded parking keeps the key it had then.
    fn key_of(&self, slot: &Slot<P::Input>) -> crate::ParkingKey {
        let recorded = self.owned.as_ref().and_then(|owned| owned.recorded.get(&slot.record.offset));
        recorded.cloned().unwrap_or_else(|| slot.record.parking_key())
    }

    fn batch_committed(&mut self, plan: &Plan<P::Input>) {
        self.ports.observe(Observed::Batch { records: plan.handle.len() });
        self.ports.observe(Observed::Position(plan.next));
        self.span = self.span.saturating_mul(2).clamp(1, self.limits.batch_records);
        let Some(owned) = self.owned.as_mut() else { return };
        owned.next = plan.next;
        self.culprits = self.culprits.split_off(&Offset(plan.next.0));
        owned.recorded = owned.recorded.split_off(&Offset(plan.next.0));
        for parking in &plan.park {
            tracing::error!(
                topic = %parking.record.topic,
                partition = parking.record.partition,
                offset = parking.record.offset.0,
                parking_key = %parking.key,
                cause = parking.cause.as_str(),
                detail = parking.detail,
                "record parked"
            );
            if self.ports.is_contiguous() {
                owned.parked.add(parking.key.clone(), parking.record.offset);
            }
        }
        if !plan.park.is_empty() {
            self.ports.observe(Observed::ParkedKeys(owned.parked.len()));
        }
    }

    /// Puts the records back. If one of them is to blame, the next transaction holds half as many; a single one is
    /// the culprit.
    fn batch_failed(&mut self, plan: Plan<P::Input>, failure: Failure) -> Stepped {
        let count = plan.handle.len();
        let first = plan.handle.first().map(|received| received.record.offset);
        self.put_back(plan);
        match failure {
            Failure::RolledBack { class: ErrorClass::Permanent | ErrorClass::Bug, detail } if count > 0 => {
                self.ports.observe(Observed::Retry);
                if count > 1 {
                    self.span = count / 2;
                } else if let Some(offset) = first {
                    self.culprits.insert(offset, detail);
                }
                Stepped::Progress
            }
            failure => self.failed(failure),
        }
    }

    fn put_back(&mut self, plan: Plan<P::Input>) {
        let mut slots = plan.parked_slots;
        slots.extend(
            plan.handle
                .into_iter()
                .map(|received| Slot { record: received.record, parsed: Parsed::Input(received.input) }),
        );
        slots.sort_by_key(|slot| slot.record.offset);
        for slot in slots.into_iter().rev() {
            self.queue.push_front(slot);
        }
    }
}
