//! The step table: what the saga does, in which kind of step, and what takes it back.

use schemas::{StepName, TimerName};

/// The version of the step table that new sagas start with. A running saga keeps its own.
pub const DEFINITION_VERSION: u16 = 1;

/// The most lines an order may have.
pub const MAX_LINES: usize = 20;

/// How many of the latest request ids a saga remembers, to recognise a repeat.
pub const MAX_REMEMBERED_REQUESTS: usize = 32;

/// Who carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Participant {
    /// The stock worker; one command for each line.
    Stock,
    /// The payment worker; one command for the order.
    Payment,
}

/// What a step means for the saga's way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Can be taken back: the saga may still end either way.
    Compensable,
    /// Decides: once it is done the saga goes forward.
    Pivot,
    /// Behind the pivot, or a compensation: may be late, is repeated until it is done.
    Retriable,
}

/// Who sends a command again, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// The participant keeps trying; the step's deadline ends the waiting.
    UntilDeadline,
    /// The participant keeps trying; what it reports as failed waits for an operator's `RetryStep`.
    UntilDone,
}

/// Whether an operator may take a step as done without its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipRule {
    /// Never: units would be lost or sold twice. Only a retry ends it.
    Never,
    /// Once it has failed, with a reference to what settled it by hand.
    SettledByHand,
}

/// One step or compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its name, as operators use it.
    pub name: StepName,
    /// The message type of its command.
    pub command: &'static str,
    /// Who carries it out.
    pub participant: Participant,
    /// What takes it back once it is done.
    pub compensation: Option<StepName>,
    /// What takes it back while its outcome is not known.
    pub compensation_under_way: Option<StepName>,
    /// What it means for the saga's way out.
    pub kind: StepKind,
    /// The timer that bounds it.
    pub deadline: Option<TimerName>,
    /// Who sends it again.
    pub retry: RetryPolicy,
    /// Whether it may be skipped.
    pub skip: SkipRule,
}

/// The steps in their order, then the compensations.
pub const STEPS: [Step; 7] = [
    Step {
        name: StepName::Reserve,
        command: "ReserveStock",
        participant: Participant::Stock,
        compensation: Some(StepName::Release),
        compensation_under_way: Some(StepName::Release),
        kind: StepKind::Compensable,
        deadline: Some(TimerName::PayBefore),
        retry: RetryPolicy::UntilDeadline,
        skip: SkipRule::Never,
    },
    Step {
        name: StepName::Charge,
        command: "ChargePayment",
        participant: Participant::Payment,
        compensation: Some(StepName::Refund),
        compensation_under_way: Some(StepName::Close),
        kind: StepKind::Pivot,
        deadline: Some(TimerName::ChargeDeadline),
        retry: RetryPolicy::UntilDeadline,
        skip: SkipRule::SettledByHand,
    },
    Step {
        name: StepName::Confirm,
        command: "ConfirmStock",
        participant: Participant::Stock,
        compensation: Some(StepName::Restock),
        compensation_under_way: Some(StepName::Restock),
        kind: StepKind::Retriable,
        deadline: None,
        retry: RetryPolicy::UntilDone,
        skip: SkipRule::Never,
    },
    compensation(StepName::Release, "ReleaseStock", Participant::Stock, SkipRule::Never),
    compensation(StepName::Close, "ClosePayment", Participant::Payment, SkipRule::SettledByHand),
    compensation(StepName::Refund, "RefundPayment", Participant::Payment, SkipRule::SettledByHand),
    compensation(StepName::Restock, "RestockStock", Participant::Stock, SkipRule::Never),
];

const fn compensation(
    name: StepName,
    command: &'static str,
    participant: Participant,
    skip: SkipRule,
) -> Step {
    Step {
        name,
        command,
        participant,
        compensation: None,
        compensation_under_way: None,
        kind: StepKind::Retriable,
        deadline: None,
        retry: RetryPolicy::UntilDone,
        skip,
    }
}

/// The step of that name.
pub(crate) fn step(name: StepName) -> &'static Step {
    let [reserve, charge, confirm, release, close, refund, restock] = &STEPS;
    match name {
        StepName::Reserve => reserve,
        StepName::Charge => charge,
        StepName::Confirm => confirm,
        StepName::Release => release,
        StepName::Close => close,
        StepName::Refund => refund,
        StepName::Restock => restock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_finds_its_own_row() {
        for row in &STEPS {
            assert_eq!(step(row.name).name, row.name);
        }
    }

    #[test]
    fn exactly_one_step_is_the_pivot_and_what_is_behind_it_is_retriable() {
        let kinds: Vec<_> = STEPS.iter().map(|step| step.kind).collect();
        let pivot = kinds.iter().position(|kind| *kind == StepKind::Pivot).unwrap();
        assert!(kinds[..pivot].iter().all(|kind| *kind == StepKind::Compensable));
        assert!(kinds[pivot + 1..].iter().all(|kind| *kind == StepKind::Retriable));
    }

    #[test]
    fn what_waits_for_a_deadline_has_one_and_a_compensation_to_end_it() {
        for step in &STEPS {
            let bounded = step.retry == RetryPolicy::UntilDeadline;
            assert_eq!(bounded, step.deadline.is_some(), "{:?}", step.name);
            assert!(!bounded || step.compensation_under_way.is_some(), "{:?}", step.name);
        }
    }

    #[test]
    fn nothing_that_moves_units_can_be_skipped() {
        for step in &STEPS {
            assert!(
                step.participant != Participant::Stock || step.skip == SkipRule::Never,
                "{:?}",
                step.name
            );
        }
    }
}
