#![doc = include_str!("../README.md")]
#![warn(clippy::wildcard_enum_match_arm, reason = "a new variant is decided on, not swallowed")]

mod decide;
mod definition;
mod documentation;
mod effect;
mod event;
mod evolve;
mod reason;
mod state;

pub use decide::{Advance, Decision, decide, fold};
pub use definition::{
    AnswerRule, DEFINITIONS, Definition, MAX_LINES, MAX_REMEMBERED_REQUESTS, Participant, RetryPolicy,
    SkipRule, Step, StepKind,
};
pub use documentation::{mermaid, render as documentation};
pub use effect::Effect;
pub use event::{Event, Placed, PlacedLine};
pub use evolve::evolve;
pub use reason::{IgnoreReason, RefusalCode};
pub use state::{CommandRef, Line, LineStage, Payment, PaymentStage, Saga, Timer};
