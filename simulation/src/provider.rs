//! The payment provider: a book of its own, and requests that arrive late, twice, or never.

use std::collections::BTreeMap;

use domain_types::{CustomerId, Money, OrderId};
use futures::channel::oneshot;
use payment_domain::{ChargeAnswer, ProviderCall, QueryAnswer, RefundAnswer, Terms, VoidAnswer};
use payment_worker::Provider;
use schemas::DeclineReason;

use crate::planted::Planted;
use crate::world::{Shared, World, lock};

/// Methods that the provider declines begin so.
pub(crate) const DECLINE: &str = "tok_decline";

/// For a provider that can't bar keys it has not seen: no request arrives later than this.
pub(crate) const LATE_REQUEST_MS: i64 = 4_000;

/// What the provider knows of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Charged { customer_id: CustomerId, amount: Money },
    Declined,
    Voided,
}

#[derive(Debug, Clone, PartialEq)]
enum Ask {
    Charge(Terms, CustomerId),
    Query,
    Void,
    Refund(Money),
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Charged(String),
    Declined,
    Voided,
    NotFound,
    Refunded(String),
    Refused,
}

struct Request {
    order_id: OrderId,
    charge_key: String,
    refund_key: String,
    ask: Ask,
    sent_ms: i64,
    /// It is on its way until then.
    not_before_ms: i64,
    answer: Option<oneshot::Sender<Option<Told>>>,
}

/// The provider's book, and what is on its way to it.
#[derive(Default)]
pub(crate) struct Book {
    /// By charge key.
    pub(crate) charges: BTreeMap<String, (OrderId, Entry)>,
    /// By refund key.
    pub(crate) refunds: BTreeMap<String, (OrderId, Money)>,
    requests: Vec<Request>,
    /// Whether a key that was never seen can be barred.
    pub(crate) can_bar: bool,
}

impl Book {
    fn carry_out(&mut self, request: &Request) -> Told {
        let key = &request.charge_key;
        match (&request.ask, self.charges.get(key)) {
            (Ask::Charge(terms, customer_id), None) => {
                let declined = terms.method.0.starts_with(DECLINE);
                let entry = if declined {
                    Entry::Declined
                } else {
                    Entry::Charged { customer_id: *customer_id, amount: terms.amount }
                };
                self.charges.insert(key.clone(), (request.order_id, entry));
                if declined { Told::Declined } else { Told::Charged(format!("c-{key}")) }
            }
            (Ask::Void, None) if self.can_bar => {
                self.charges.insert(key.clone(), (request.order_id, Entry::Voided));
                Told::Voided
            }
            (Ask::Query | Ask::Void, None) => Told::NotFound,
            (Ask::Refund(amount), Some((_, Entry::Charged { .. }))) => {
                self.refunds.insert(request.refund_key.clone(), (request.order_id, *amount));
                Told::Refunded(format!("r-{}", request.refund_key))
            }
            (Ask::Refund(_), _) => Told::Refused,
            (Ask::Charge(..) | Ask::Query | Ask::Void, Some((_, Entry::Charged { .. }))) => {
                Told::Charged(format!("c-{key}"))
            }
            (Ask::Charge(..) | Ask::Query | Ask::Void, Some((_, Entry::Declined))) => Told::Declined,
            (Ask::Charge(..) | Ask::Query | Ask::Void, Some((_, Entry::Voided))) => Told::Voided,
        }
    }
}

impl World {
    pub(crate) fn provider_is_quiet(&self) -> bool {
        self.book.requests.is_empty()
    }

    /// The provider does something about one request.
    pub(crate) fn provider_works(&mut self) {
        let now_ms = self.now_ms;
        let numbered = self.book.requests.iter().enumerate();
        let arrived: Vec<usize> =
            numbered.filter(|(_, request)| request.not_before_ms <= now_ms).map(|(index, _)| index).collect();
        let Some(chosen) = self.rng.pick(&arrived).copied() else { return };
        let mut request = self.book.requests.swap_remove(chosen);
        let too_late = !self.book.can_bar && self.now_ms - request.sent_ms >= LATE_REQUEST_MS - 1_000;
        if too_late {
            if let Some(answer) = request.answer.take() {
                let _caller_gone = answer.send(None);
            }
            return;
        }
        let (unknown, late) = (self.mix.provider_unknown, self.mix.provider_late);
        let what = |request: &Request| format!("{:?} of order {}", request.ask, request.order_id);
        if self.rng.per_mille(unknown) {
            // The answer is lost; the request may be carried out now, later, or never.
            if let Some(answer) = request.answer.take() {
                let _caller_gone = answer.send(None);
            }
            match self.rng.below(3) {
                0 => {
                    self.book.carry_out(&request);
                    self.tell(|| {
                        format!("the provider carries out {}, and its answer is lost", what(&request))
                    });
                }
                1 => {
                    self.tell(|| {
                        format!("the provider's answer is lost for {}: it may come late", what(&request))
                    });
                    request.not_before_ms = self.now_ms + self.rng.between(0, 2_500);
                    self.book.requests.push(request);
                }
                _ => self.tell(|| format!("the provider never sees {}", what(&request))),
            }
            return;
        }
        if self.rng.per_mille(late) {
            self.book.requests.push(request);
            return;
        }
        let told = self.book.carry_out(&request);
        if self.rng.per_mille(self.mix.duplicates) {
            self.book.carry_out(&request);
        }
        self.tell(|| format!("the provider answers {}: {told:?}", what(&request)));
        if let Some(answer) = request.answer.take() {
            let _caller_gone = answer.send(Some(told));
        }
    }
}

/// The port that payment workers call.
pub(crate) struct VirtualProvider {
    pub(crate) world: Shared<World>,
}

impl VirtualProvider {
    async fn ask(&self, call: &ProviderCall, ask: Ask) -> Option<Told> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut world = lock(&self.world);
            let (order_id, number) = (call.order_id, call.number.0);
            let numbered = |planted, key: String| {
                if world.planted == Some(planted) { format!("{key}-{number}") } else { key }
            };
            let charge_key = numbered(Planted::ChargeKeyPerCall, call.charge_key.to_string());
            let refund_key = numbered(Planted::RefundKeyPerCall, format!("refund-{order_id}"));
            let sent_ms = world.now_ms;
            world.book.requests.push(Request {
                order_id,
                charge_key,
                refund_key,
                ask,
                sent_ms,
                not_before_ms: sent_ms,
                answer: Some(sender),
            });
        }
        receiver.await.ok().flatten()
    }

    fn planted(&self, bug: Planted) -> bool {
        lock(&self.world).is_planted(bug)
    }
}

impl Provider for VirtualProvider {
    async fn charge(&self, call: &ProviderCall, terms: &Terms) -> ChargeAnswer {
        match self.ask(call, Ask::Charge(terms.clone(), call.customer_id)).await {
            Some(Told::Charged(reference)) => ChargeAnswer::Approved { reference },
            Some(Told::Declined) => ChargeAnswer::Declined(DeclineReason::Declined),
            Some(Told::Voided) => ChargeAnswer::Voided,
            None if self.planted(Planted::UnknownTakenAsDeclined) => {
                ChargeAnswer::Declined(DeclineReason::Declined)
            }
            Some(Told::NotFound | Told::Refunded(_) | Told::Refused) | None => ChargeAnswer::Unknown,
        }
    }

    async fn query(&self, call: &ProviderCall) -> QueryAnswer {
        match self.ask(call, Ask::Query).await {
            Some(Told::Charged(reference)) => QueryAnswer::Approved { reference },
            Some(Told::Declined) => QueryAnswer::Declined(DeclineReason::Declined),
            Some(Told::Voided) => QueryAnswer::Voided,
            Some(Told::NotFound) if self.planted(Planted::NotFoundTakenAsDeclined) => {
                QueryAnswer::Declined(DeclineReason::Declined)
            }
            Some(Told::NotFound) => QueryAnswer::NotFound,
            Some(Told::Refunded(_) | Told::Refused) | None => QueryAnswer::Unknown,
        }
    }

    async fn void(&self, call: &ProviderCall) -> VoidAnswer {
        match self.ask(call, Ask::Void).await {
            Some(Told::Charged(reference)) => VoidAnswer::Approved { reference },
            Some(Told::Declined) => VoidAnswer::Declined(DeclineReason::Declined),
            Some(Told::Voided) => VoidAnswer::Voided,
            Some(Told::NotFound) => VoidAnswer::NotFound,
            Some(Told::Refunded(_) | Told::Refused) | None => VoidAnswer::Unknown,
        }
    }

    async fn refund(&self, call: &ProviderCall, amount: Money) -> RefundAnswer {
        match self.ask(call, Ask::Refund(amount)).await {
            Some(Told::Refunded(reference)) => RefundAnswer::Refunded { reference },
            Some(Told::Refused) => RefundAnswer::Refused { code: "refused".to_owned() },
            Some(Told::Charged(_) | Told::Declined | Told::Voided | Told::NotFound) | None => {
                RefundAnswer::Unknown
            }
        }
    }
}
