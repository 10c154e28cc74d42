//! When the owner looks for due timers.

use std::time::Duration;

use domain_types::Timestamp;

/// The earliest due time in the partition, as far as is known: never later than the truth, so that looking may be in
/// vain but nothing is missed.
#[derive(Debug)]
pub(crate) struct Timers {
    next: Option<Timestamp>,
    /// By the log's clock it is earlier than by this machine's: firing before this would only arm timers again.
    not_before: Option<Timestamp>,
    staged: Option<Staged>,
    /// This machine's.
    clock: fn() -> Timestamp,
}

/// What the transaction in hand makes of it.
#[derive(Debug)]
enum Staged {
    Armed(Timestamp),
    Looked(Option<Timestamp>),
}

impl Timers {
    /// At a take-over: the earliest in the table.
    pub(crate) fn new(next: Option<Timestamp>, clock: fn() -> Timestamp) -> Self {
        Self { next, not_before: None, staged: None, clock }
    }

    /// When to look.
    pub(crate) fn next_work(&self) -> Option<Timestamp> {
        let next = self.next?;
        Some(self.not_before.map_or(next, |not_before| next.max(not_before)))
    }

    /// The transaction in hand arms a timer.
    pub(crate) fn armed(&mut self, due_at: Timestamp) {
        self.staged = Some(Staged::Armed(match self.staged {
            Some(Staged::Armed(earlier)) => earlier.min(due_at),
            Some(Staged::Looked(_)) | None => due_at,
        }));
    }

    /// A timer came back as not yet due: by the log's clock it has this long to go.
    pub(crate) fn came_early_by(&mut self, wait: Duration) {
        self.not_before = Some((self.clock)().plus(wait));
    }

    /// The transaction in hand looked, and this is the earliest that is left.
    pub(crate) fn looked(&mut self, next: Option<Timestamp>) {
        self.staged = Some(Staged::Looked(next));
    }

    pub(crate) fn committed(&mut self) {
        match self.staged.take() {
            Some(Staged::Armed(due_at)) => {
                self.next = Some(self.next.map_or(due_at, |next| next.min(due_at)));
            }
            Some(Staged::Looked(next)) => self.next = next,
            None => {}
        }
    }

    pub(crate) fn rolled_back(&mut self) {
        self.staged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_earliest_counts_and_only_once_it_is_committed() {
        let mut timers = Timers::new(Some(at(50)), || at(0));
        timers.armed(at(30));
        timers.armed(at(40));
        assert_eq!(timers.next_work(), Some(at(50)));
        timers.rolled_back();
        timers.committed();
        assert_eq!(timers.next_work(), Some(at(50)));
        timers.armed(at(30));
        timers.committed();
        assert_eq!(timers.next_work(), Some(at(30)));
        timers.looked(None);
        timers.committed();
        assert_eq!(timers.next_work(), None);
    }

    #[test]
    fn a_clock_ahead_of_the_log_s_does_not_make_the_owner_spin() {
        let mut timers = Timers::new(Some(at(0)), || at(7));
        timers.came_early_by(Duration::from_secs(2));
        assert_eq!(timers.next_work(), Some(at(2_007)));
    }
}
