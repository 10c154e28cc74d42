//! Schedules of faults, and planted bugs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::{Outcome, Planted, run, run_and_tell};

/// Schedules that every run of the tests makes; `make simulate` makes many more.
const SCHEDULES: u64 = 1_500;
/// Schedules within which each planted bug must be found.
const BUDGET: u64 = 6_000;

/// The first seed that breaks a promise, with its story.
fn search(planted: Option<Planted>, schedules: u64) -> Option<Outcome> {
    let (next, found) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > schedules || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if !run(seed, planted, false).unwrap().violations.is_empty() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.into_inner();
    (seed <= schedules).then(|| run_and_tell(seed, planted).unwrap())
}

#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    if let Some(outcome) = search(None, SCHEDULES) {
        let last = outcome.story.len().saturating_sub(60);
        panic!(
            "{}\n{:#?}\nthe whole story: make simulate ARGS=\"--seed {}\"",
            outcome.story[last..].join("\n"),
            outcome.violations,
            outcome.seed
        );
    }
}

#[test]
fn every_planted_bug_is_found_within_the_budget() {
    let mut missed = Vec::new();
    for bug in Planted::ALL.iter().copied() {
        match search(Some(bug), BUDGET) {
            Some(outcome) => println!("{bug:?}: seed {}, {}", outcome.seed, outcome.violations[0]),
            None => missed.push(format!("{bug:?}: {}", bug.describe())),
        }
    }
    assert!(missed.is_empty(), "not found within {BUDGET} schedules: {missed:#?}");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 1..30 {
        assert_eq!(run(seed, None, true).unwrap(), run(seed, None, true).unwrap());
    }
}
