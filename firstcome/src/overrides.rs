//! `--set NAME=VALUE`: policies, and how the simulated payment provider behaves.

use std::str::FromStr;

use toml::{Table, Value};

use tool_kit::duration;

/// One checked setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Override {
    name: &'static str,
    value: Value,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A duration, written to the settings in milliseconds.
    Milliseconds,
    /// A share between 0 and 1.
    Share,
    /// A whole number.
    Number,
}

/// Name on the command line, service, path in its settings, kind.
const KNOWN: [(&str, Target, &[&str], Kind); 9] = [
    ("day", Target::Policy, &["policy", "day_ms"], Kind::Milliseconds),
    ("pay_within", Target::Policy, &["policy", "pay_within_ms"], Kind::Milliseconds),
    ("charge_within", Target::Policy, &["policy", "charge_within_ms"], Kind::Milliseconds),
    ("provider.abandon", Target::Provider, &["provider", "abandon"], Kind::Share),
    ("provider.decline", Target::Provider, &["provider", "decline"], Kind::Share),
    ("provider.over_limit", Target::Provider, &["provider", "over_limit"], Kind::Share),
    ("provider.unknown", Target::Provider, &["provider", "unknown"], Kind::Share),
    ("provider.latency", Target::Provider, &["provider", "latency_ms"], Kind::Milliseconds),
    ("provider.seed", Target::Provider, &["provider", "seed"], Kind::Number),
];

/// Whose settings an override goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The api, which records policies in each order.
    Policy,
    /// The payment worker's simulated provider.
    Provider,
}

impl FromStr for Override {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| anyhow::anyhow!("{text:?} is not NAME=VALUE"))?;
        let Some((name, _, _, kind)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = KNOWN.iter().map(|(name, ..)| *name).collect();
            anyhow::bail!("there is no setting {name:?}; there are {}", known.join(", "));
        };
        let value = match kind {
            Kind::Milliseconds => {
                let duration = duration::parse(value).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
                Value::Integer(i64::try_from(duration.as_millis())?)
            }
            Kind::Share => {
                let share: f64 =
                    value.parse().map_err(|_error| anyhow::anyhow!("{name}: {value:?} is no number"))?;
                anyhow::ensure!((0.0..=1.0).contains(&share), "{name}: {value} is not between 0 and 1");
                Value::Float(share)
            }
            Kind::Number => {
                let number: i64 = value
                    .parse()
                    .map_err(|_error| anyhow::anyhow!("{name}: {value:?} is no whole number"))?;
                Value::Integer(number)
            }
        };
        Ok(Self { name, value })
    }
}

/// Writes those overrides that are for `target` into its settings; a later one of the same name wins.
pub(crate) fn apply(overrides: &[Override], target: Target, settings: &mut Table) {
    for setting in overrides {
        for (name, whose, path, _) in KNOWN {
            if name == setting.name && whose == target {
                insert(settings, path, setting.value.clone());
            }
        }
    }
}

fn insert(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert((*name).to_owned(), value);
        }
        [name, below @ ..] => {
            let entry = table.entry((*name).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = entry {
                insert(table, below, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::{Override, Target, apply};

    #[test]
    fn overrides_reach_the_settings_they_are_for_and_the_last_one_wins() {
        let set: Vec<Override> =
            ["day=10s", "provider.decline=0.5", "day=2s"].iter().map(|text| text.parse().unwrap()).collect();
        let mut policy = Table::new();
        apply(&set, Target::Policy, &mut policy);
        assert_eq!(policy.to_string(), "[policy]\nday_ms = 2000\n");
        let mut provider = Table::new();
        apply(&set, Target::Provider, &mut provider);
        assert_eq!(provider.to_string(), "[provider]\ndecline = 0.5\n");
    }

    #[test]
    fn a_wrong_override_is_refused_in_a_sentence() {
        for wrong in ["day", "dya=1s", "day=1", "provider.decline=2", "provider.decline=x", "provider.seed=-"]
        {
            assert!(wrong.parse::<Override>().is_err(), "{wrong}");
        }
    }
}
