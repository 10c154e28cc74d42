//! What the method token says will happen. Pure: the same token, key and settings always give the same.

use std::time::Duration;

use schemas::{DeclineReason, PaymentMethod};

use crate::settings::SimulatedSettings;

/// How slow `tok_slow` is.
const SLOW: Duration = Duration::from_secs(3);

/// What the book holds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Approved,
    Declined(DeclineReason),
    Voided,
}

/// What will happen to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) fate: Fate,
    pub(super) slow_by: Duration,
    /// The first answer never arrives; the fate stands all the same.
    pub(super) loses_first_answer: bool,
}

impl Plan {
    const fn at_once(fate: Fate) -> Self {
        Self { fate, slow_by: Duration::ZERO, loses_first_answer: false }
    }

    const fn lost(fate: Fate) -> Self {
        Self { loses_first_answer: true, ..Self::at_once(fate) }
    }
}

/// What happens to a charge with this method under this key. A token that nobody knows is declined.
pub(super) fn plan(method: &PaymentMethod, key: &str, settings: &SimulatedSettings) -> Plan {
    match method.0.as_str() {
        "tok_approve" => Plan::at_once(Fate::Approved),
        "tok_over_limit" => Plan::at_once(Fate::Declined(DeclineReason::OverLimit)),
        "tok_abandon" => Plan::at_once(Fate::Declined(DeclineReason::Abandoned)),
        "tok_slow" => Plan { slow_by: SLOW, ..Plan::at_once(Fate::Approved) },
        "tok_unknown_approve" => Plan::lost(Fate::Approved),
        "tok_unknown_decline" => Plan::lost(Fate::Declined(DeclineReason::Declined)),
        "tok_random" => random(key, settings),
        _ => Plan::at_once(Fate::Declined(DeclineReason::Declined)),
    }
}

/// First some abandon, then some of the others are declined, then some of those are over their limit; apart from that, some first
/// answers are lost.
fn random(key: &str, settings: &SimulatedSettings) -> Plan {
    let mut dice = Dice::new(settings.seed, key);
    let refusals = [
        (settings.abandon, DeclineReason::Abandoned),
        (settings.decline, DeclineReason::Declined),
        (settings.over_limit, DeclineReason::OverLimit),
    ];
    // Every die is thrown, so that changing one rate leaves the other outcomes as they were.
    let refused = refusals.map(|(rate, reason)| (dice.throw() < rate).then_some(reason));
    let fate = refused.into_iter().flatten().next().map_or(Fate::Approved, Fate::Declined);
    if dice.throw() < settings.unknown { Plan::lost(fate) } else { Plan::at_once(fate) }
}

/// The provider's name for what it did under a key.
pub(super) fn reference(prefix: &str, key: &str) -> String {
    format!("{prefix}_{:016x}", fnv1a(key))
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `SplitMix64` (Steele, Lea, Flood 2014), seeded by number and text.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, key: &str) -> Self {
        Self(fnv1a(key) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number from 0 to just below 1.
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let bits = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(settings: &SimulatedSettings, charges: u32) -> Vec<Plan> {
        let method = PaymentMethod("tok_random".into());
        (0..charges).map(|n| plan(&method, &format!("charge-{n}"), settings)).collect()
    }

    #[test]
    fn with_the_defaults_about_64_of_100_random_charges_are_approved_and_20_abandoned() {
        let plans = fates(&SimulatedSettings::default(), 20_000);
        let share = |fate: Fate| {
            let count = plans.iter().filter(|plan| plan.fate == fate).count();
            f64::from(u32::try_from(count).unwrap()) / 20_000.0
        };
        assert!((share(Fate::Approved) - 0.64).abs() < 0.015, "{}", share(Fate::Approved));
        assert!((share(Fate::Declined(DeclineReason::Abandoned)) - 0.20).abs() < 0.015);
        assert!((share(Fate::Declined(DeclineReason::Declined)) - 0.16).abs() < 0.015);
        assert!(plans.iter().all(|plan| !plan.loses_first_answer));
    }

    #[test]
    fn the_same_seed_and_key_repeat_and_another_seed_differs() {
        let settings = SimulatedSettings::default();
        assert_eq!(fates(&settings, 500), fates(&settings, 500));
        let other = SimulatedSettings { seed: 2, ..SimulatedSettings::default() };
        assert_ne!(fates(&settings, 500), fates(&other, 500));
    }

    #[test]
    fn rates_of_one_and_zero_are_always_and_never() {
        let always = SimulatedSettings {
            abandon: 0.0,
            decline: 0.0,
            over_limit: 1.0,
            unknown: 1.0,
            ..SimulatedSettings::default()
        };
        let expected = Plan::lost(Fate::Declined(DeclineReason::OverLimit));
        assert!(fates(&always, 300).iter().all(|plan| *plan == expected));
    }

    #[test]
    fn an_unknown_token_is_declined() {
        let plan = plan(&PaymentMethod("visa".into()), "k", &SimulatedSettings::default());
        assert_eq!(plan, Plan::at_once(Fate::Declined(DeclineReason::Declined)));
    }
}
