//! The step tables: what the saga does, in which kind of step, and what takes it back. `PlaceOrder` names the one that a saga
//! begins and ends with.

use domain_types::Attempt;
use schemas::{SAGA_DEFINITION, StepName, TimerName};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

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

/// Which tries of a command are answered when they succeed; one that fails always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerRule {
    /// Each.
    EachTry,
    /// All but the first: nothing waits for it. The saga tries again once it wants to know.
    Retries,
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
    /// What is answered.
    pub answers: AnswerRule,
    /// Whether it may be skipped.
    pub skip: SkipRule,
}

/// How sagas that began with it go on, to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its number, as `PlaceOrder` names it.
    pub version: u16,
    /// The steps in their order, then the compensations.
    pub steps: [Step; 7],
}

/// All that this build knows, oldest first: the one at index `n` has version `n + 1`. None is ever changed or taken away while
/// a saga that began with it may still be in the log.
pub static DEFINITIONS: [Definition; SAGA_DEFINITION as usize] = [
    Definition { version: 1, steps: steps(AnswerRule::EachTry) },
    Definition { version: 2, steps: steps(AnswerRule::Retries) },
];

const fn steps(confirm_answers: AnswerRule) -> [Step; 7] {
    [
        Step {
            name: StepName::Reserve,
            command: "ReserveStock",
            participant: Participant::Stock,
            compensation: Some(StepName::Release),
            compensation_under_way: Some(StepName::Release),
            kind: StepKind::Compensable,
            deadline: Some(TimerName::PayBefore),
            retry: RetryPolicy::UntilDeadline,
            answers: AnswerRule::EachTry,
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
            answers: AnswerRule::EachTry,
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
            answers: confirm_answers,
            skip: SkipRule::Never,
        },
        compensation(StepName::Release, "ReleaseStock", Participant::Stock, SkipRule::Never),
        compensation(StepName::Close, "ClosePayment", Participant::Payment, SkipRule::SettledByHand),
        compensation(StepName::Refund, "RefundPayment", Participant::Payment, SkipRule::SettledByHand),
        compensation(StepName::Restock, "RestockStock", Participant::Stock, SkipRule::Never),
    ]
}

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
        answers: AnswerRule::EachTry,
        skip,
    }
}

impl Definition {
    /// The one of that version, if this build knows it.
    pub fn of(version: u16) -> Option<&'static Self> {
        DEFINITIONS.get(usize::from(version).checked_sub(1)?)
    }

    /// Its step of that name.
    pub(crate) const fn step(&self, name: StepName) -> &Step {
        let [reserve, charge, confirm, release, close, refund, restock] = &self.steps;
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
}

impl Step {
    /// Whether this try of it is answered only if it fails.
    pub(crate) fn is_silent(&self, attempt: Attempt) -> bool {
        match self.answers {
            AnswerRule::EachTry => false,
            AnswerRule::Retries => attempt == Attempt::FIRST,
        }
    }
}

/// Reads the version of a stored saga; one that this build doesn't know is an error, not a guess.
pub(crate) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let version = u16::deserialize(deserializer)?;
    match Definition::of(version) {
        Some(_) => Ok(version),
        None => Err(D::Error::custom(format!(
            "definition {version} of the saga is not known to this build (1 to {SAGA_DEFINITION})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_steps() -> impl Iterator<Item = &'static Step> {
        DEFINITIONS.iter().flat_map(|definition| &definition.steps)
    }

    #[test]
    fn each_version_finds_its_own_definition_and_no_other() {
        for version in 0..=u16::MAX {
            let found = Definition::of(version).map(|definition| definition.version);
            assert_eq!(found, (1..=SAGA_DEFINITION).contains(&version).then_some(version));
        }
    }

    #[test]
    fn each_name_finds_its_own_row() {
        for definition in &DEFINITIONS {
            for row in &definition.steps {
                assert_eq!(definition.step(row.name).name, row.name);
            }
        }
    }

    #[test]
    fn exactly_one_step_is_the_pivot_and_what_is_behind_it_is_retriable() {
        for definition in &DEFINITIONS {
            let kinds: Vec<_> = definition.steps.iter().map(|step| step.kind).collect();
            let pivot = kinds.iter().position(|kind| *kind == StepKind::Pivot).unwrap();
            assert!(kinds[..pivot].iter().all(|kind| *kind == StepKind::Compensable));
            assert!(kinds[pivot + 1..].iter().all(|kind| *kind == StepKind::Retriable));
        }
    }

    #[test]
    fn what_waits_for_a_deadline_has_one_and_a_compensation_to_end_it() {
        for step in all_steps() {
            let bounded = step.retry == RetryPolicy::UntilDeadline;
            assert_eq!(bounded, step.deadline.is_some(), "{:?}", step.name);
            assert!(!bounded || step.compensation_under_way.is_some(), "{:?}", step.name);
        }
    }

    #[test]
    fn nothing_that_moves_units_can_be_skipped() {
        for step in all_steps() {
            assert!(
                step.participant != Participant::Stock || step.skip == SkipRule::Never,
                "{:?}",
                step.name
            );
        }
    }

    #[test]
    fn only_what_is_repeated_until_it_is_done_goes_unanswered() {
        for step in all_steps().filter(|step| step.answers == AnswerRule::Retries) {
            assert_eq!(
                (step.kind, step.retry),
                (StepKind::Retriable, RetryPolicy::UntilDone),
                "{:?}",
                step.name
            );
        }
    }
}
