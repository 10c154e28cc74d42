//! Which orders are meant.

use std::str::FromStr;
use std::time::Duration;

use domain_types::{CustomerId, Sku, Timestamp};
use schemas::{OrderState, StepName};

use crate::cli::{self, List};
use crate::view::{Waiting, waits};
use order_orchestrator::PresentSaga;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Clause {
    State(Vec<OrderState>),
    Reason(String),
    Step(StepName),
    WaitingFor(String),
    Sku(Sku),
    Customer(CustomerId),
    Definition(u16),
    Older(Duration),
    Idle(Duration),
    NeedsOperator,
    Paused,
    NotFinal,
}

impl FromStr for Clause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "state" => value.split(',').map(cli::order_state).collect::<Result<_, _>>().map(Self::State),
            "reason" if !value.is_empty() => Ok(Self::Reason(value.to_owned())),
            "step" => cli::step_name(value).map(Self::Step),
            "waiting_for" if !value.is_empty() => Ok(Self::WaitingFor(value.to_owned())),
            "sku" => value.parse().map(Self::Sku).map_err(|error| format!("{error}")),
            "customer" => value.parse().map(Self::Customer).map_err(|error| format!("{error}")),
            "older" => cli::duration(value).map(Self::Older),
            "idle" => cli::duration(value).map(Self::Idle),
            "needs_operator" if value.is_empty() => Ok(Self::NeedsOperator),
            "paused" if value.is_empty() => Ok(Self::Paused),
            _ => Err("clauses are state=, reason=, step=, waiting_for=, sku=, customer=, older=, idle=, needs_operator, paused"
                .to_owned()),
        }
    }
}

/// All conditions of a command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter(pub(crate) Vec<Clause>);

impl Filter {
    pub(crate) fn of_list(options: &List) -> Self {
        let mut clauses = Vec::new();
        let names_final = options.state.iter().any(|state| is_final_state(*state));
        if !options.all && !names_final {
            clauses.push(Clause::NotFinal);
        }
        if !options.state.is_empty() {
            clauses.push(Clause::State(options.state.clone()));
        }
        clauses.extend(options.reason.clone().map(Clause::Reason));
        clauses.extend(options.step.map(Clause::Step));
        clauses.extend(options.waiting_for.clone().map(Clause::WaitingFor));
        clauses.extend(options.sku.clone().map(Clause::Sku));
        clauses.extend(options.customer.map(Clause::Customer));
        clauses.extend(options.definition.map(Clause::Definition));
        clauses.extend(options.older.map(Clause::Older));
        clauses.extend(options.idle.map(Clause::Idle));
        clauses.extend(options.paused.then_some(Clause::Paused));
        clauses.extend(options.needs_operator.then_some(Clause::NeedsOperator));
        Self(clauses)
    }

    /// Whether all of them hold now.
    pub(crate) fn holds(&self, present: &PresentSaga, now: Timestamp) -> bool {
        let saga = &present.saga;
        self.0.iter().all(|clause| match clause {
            Clause::State(states) => states.contains(&saga.state),
            Clause::Reason(reason) => saga.reason().is_some_and(|found| found.as_str() == reason),
            Clause::Step(step) => saga.awaited().iter().any(|command| command.step == *step),
            Clause::WaitingFor(what) => waits(saga).iter().any(|waiting| waiting.what() == what),
            Clause::Sku(sku) => saga.lines.iter().any(|line| line.sku == *sku),
            Clause::Customer(customer) => saga.customer_id == *customer,
            Clause::Definition(version) => saga.definition == *version,
            Clause::Older(age) => now.since(saga.ordered_at) > *age,
            Clause::Idle(idle) => now.since(saga.now) > *idle,
            Clause::NeedsOperator => {
                waits(saga).iter().any(|waiting| matches!(waiting, Waiting::Operator { .. }))
            }
            Clause::Paused => saga.paused,
            Clause::NotFinal => !saga.is_final(),
        })
    }
}

const fn is_final_state(state: OrderState) -> bool {
    matches!(
        state,
        OrderState::Cancelled
            | OrderState::Returned
            | OrderState::Rejected
            | OrderState::PaymentFailed
            | OrderState::Expired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_that_is_none_is_refused_and_says_which_there_are() {
        assert_eq!("needs_operator".parse(), Ok(Clause::NeedsOperator));
        assert_eq!("older=5m".parse(), Ok(Clause::Older(Duration::from_secs(300))));
        for bad in [
            "",
            "state=",
            "state=PAID,X",
            "older=5",
            "needs_operator=1",
            "sku=a b",
            "customer=1",
            "color=red",
        ] {
            assert!(bad.parse::<Clause>().is_err(), "{bad}");
        }
    }
}
