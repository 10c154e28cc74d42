//! Puts answers and ends together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drive::Answered;
use super::plan::{Asked, Payment, Plan, to_f64};
use crate::latency::Latency;
use crate::watch::{Ended, Halves};

/// What happened within one second.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Second {
    /// Requests that were to be sent.
    pub(crate) due: u64,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Orders that ended.
    pub(crate) ended: u64,
}

/// What is known of an order that was taken.
struct Taken {
    intended: Instant,
    is_counted: bool,
    payment: Payment,
}

/// Counts while a plan is driven. What belongs to the warm-up is in the timeline only.
pub(crate) struct Count {
    begin: Instant,
    steady_from: Instant,
    halves: Halves<Taken>,
    /// Orders that were taken and have not ended.
    pub(crate) on_their_way: u64,
    pub(crate) seen: Seen,
    last_end: Option<Instant>,
}

/// What was seen.
#[derive(Default, Serialize)]
pub(crate) struct Seen {
    /// By status and code; `none`: no answer.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Of orders that were taken, to the `202`.
    pub(crate) taken: Latency,
    /// Of reads, by what was read.
    pub(crate) reads: BTreeMap<&'static str, Latency>,
    /// Of orders, to their end on `order-events`; those that are slow by themselves aside.
    pub(crate) complete: Latency,
    /// Of those whose payment is slow.
    pub(crate) slow: Latency,
    /// How late this program sent, of which every other latency is a part.
    pub(crate) sent: Latency,
    /// How orders ended.
    pub(crate) ends: BTreeMap<&'static str, u64>,
    /// Orders that ended otherwise than their payment says.
    pub(crate) wrong: u64,
    /// Orders that were taken and did not end in time.
    pub(crate) unended: u64,
    /// Second by second, warm-up and drain too.
    pub(crate) timeline: Vec<Second>,
}

impl Seen {
    /// Orders that ended.
    pub(crate) fn completed(&self) -> u64 {
        self.complete.figures().tries + self.slow.figures().tries
    }
}

impl Count {
    pub(crate) fn new(plan: &Plan, begin: Instant) -> Self {
        let mut count = Self {
            begin,
            steady_from: begin + plan.warm_up,
            halves: Halves::default(),
            on_their_way: 0,
            seen: Seen::default(),
            last_end: None,
        };
        for planned in plan.requests() {
            count.second(planned.at).due += 1;
        }
        count
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = usize::try_from(at.as_secs()).unwrap_or_default();
        let timeline = &mut self.seen.timeline;
        if timeline.len() <= index {
            timeline.resize(index + 1, Second::default());
        }
        #[expect(clippy::indexing_slicing, reason = "it was made long enough")]
        &mut timeline[index]
    }

    pub(crate) fn answered(&mut self, answered: Answered) {
        let Answered { planned, sent_after, answered_after, answer, order } = answered;
        self.second(planned.at + answered_after).answered += 1;
        if planned.is_counted {
            let is_success = answer.starts_with('2');
            *self.seen.answers.entry(answer).or_default() += 1;
            self.seen.sent.record(sent_after);
            let latency = match planned.asked {
                Asked::Order(_) => &mut self.seen.taken,
                Asked::Product => self.seen.reads.entry("product").or_default(),
                Asked::Latest => self.seen.reads.entry("latest five orders").or_default(),
            };
            if is_success {
                latency.record(answered_after);
            }
        }
        let (Asked::Order(payment), Some(order)) = (planned.asked, order) else { return };
        self.on_their_way += 1;
        let taken = Taken { intended: self.begin + planned.at, is_counted: planned.is_counted, payment };
        if let Some((taken, ended)) = self.halves.answered(order, taken) {
            self.complete(&taken, &ended);
        }
    }

    pub(crate) fn ended(&mut self, ended: &Ended) {
        if let Some((taken, ended)) = self.halves.ended(*ended) {
            self.complete(&taken, &ended);
        }
    }

    fn complete(&mut self, taken: &Taken, ended: &Ended) {
        let Taken { intended, is_counted, payment } = *taken;
        let Ended { state, at, .. } = *ended;
        self.on_their_way = self.on_their_way.saturating_sub(1);
        self.second(at.saturating_duration_since(self.begin)).ended += 1;
        self.seen.wrong += u64::from(state != payment.wanted());
        if is_counted {
            let latency = match payment {
                Payment::Slow => &mut self.seen.slow,
                Payment::Approved | Payment::Declined | Payment::Abandoned | Payment::None => {
                    &mut self.seen.complete
                }
            };
            latency.record(at.saturating_duration_since(intended));
            *self.seen.ends.entry(state.as_str()).or_default() += 1;
            self.last_end = self.last_end.max(Some(at));
        }
    }

    /// What was seen, and how many orders a second were completed: over the steady time, or for as long as it took if
    /// that was longer.
    pub(crate) fn finish(mut self, steady: Duration) -> (Seen, f64) {
        self.seen.unended = self.on_their_way;
        let took = self.last_end.map_or(steady, |last| last.saturating_duration_since(self.steady_from));
        let completed = to_f64(self.seen.completed());
        (self.seen, completed / took.max(steady).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use domain_types::OrderId;
    use schemas::OrderState;

    use super::*;
    use crate::http::plan::{Mix, Planned};

    const MS: Duration = Duration::from_millis(1);

    fn plan() -> Plan {
        Plan {
            per_second: 10.0,
            warm_up: Duration::from_secs(1),
            steady: Duration::from_secs(2),
            mix: Mix::default(),
            skus: 1,
            customers: 1,
            seed: 1,
        }
    }

    fn taken(at: Duration, after: Duration, order: OrderId) -> Answered {
        let asked = Asked::Order(Payment::Approved);
        let is_counted = at >= plan().warm_up;
        Answered {
            planned: Planned { at, is_counted, asked, sku: 0, customer: 0 },
            sent_after: MS,
            answered_after: after,
            answer: "202".to_owned(),
            order: Some(order),
        }
    }

    #[test]
    fn latency_counts_from_the_intended_instant_whichever_half_is_heard_first() {
        let begin = Instant::now();
        let mut count = Count::new(&plan(), begin);
        let (first, second, warm) =
            (OrderId(uuid::Uuid::now_v7()), OrderId(uuid::Uuid::now_v7()), OrderId(uuid::Uuid::now_v7()));
        let end = |order, at| Ended { order, state: OrderState::Paid, at: begin + at };
        count.answered(taken(MS * 1_100, MS * 5, first));
        count.ended(&end(first, MS * 1_120));
        count.ended(&end(second, MS * 1_230));
        assert_eq!(count.on_their_way, 0);
        count.answered(taken(MS * 1_200, MS * 40, second));
        count.answered(taken(MS * 100, MS * 40, warm));
        assert_eq!(count.on_their_way, 1, "the one that warms up has not ended");
        let (seen, _) = count.finish(plan().steady);
        assert_eq!(seen.complete.figures().tries, 2);
        assert!((seen.complete.figures().max - 30.0).abs() < 0.1);
        assert_eq!(seen.taken.figures().tries, 2);
        assert_eq!((seen.wrong, seen.unended), (0, 1));
        assert_eq!(seen.timeline.iter().map(|second| second.due).collect::<Vec<_>>(), [10, 10, 10]);
        assert_eq!(seen.timeline[1].ended, 2);
    }

    #[test]
    fn an_order_that_is_slow_by_itself_is_counted_apart() {
        let begin = Instant::now();
        let mut count = Count::new(&plan(), begin);
        let order = OrderId(uuid::Uuid::now_v7());
        let mut answered = taken(MS * 1_100, MS * 5, order);
        answered.planned.asked = Asked::Order(Payment::Slow);
        count.answered(answered);
        count.ended(&Ended { order, state: OrderState::Paid, at: begin + MS * 2_000 });
        let (seen, per_second) = count.finish(plan().steady);
        assert_eq!((seen.slow.figures().tries, seen.complete.figures().tries, seen.wrong), (1, 0, 0));
        assert!((per_second - 0.5).abs() < 0.01, "{per_second}");
    }

    #[test]
    fn throughput_is_over_as_long_as_it_took() {
        let begin = Instant::now();
        let mut count = Count::new(&plan(), begin);
        for number in 0..20_u32 {
            let order = OrderId(uuid::Uuid::now_v7());
            count.answered(taken(MS * (1_000 + 100 * number), MS, order));
            count.ended(&Ended { order, state: OrderState::Paid, at: begin + MS * (1_200 + 200 * number) });
        }
        // Offered within two seconds, completed within four.
        let (_, per_second) = count.finish(plan().steady);
        assert!((per_second - 5.0).abs() < 0.01, "{per_second}");
    }
}
