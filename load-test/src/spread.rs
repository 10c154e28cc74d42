//! Figures of several runs.

use std::fmt;
use std::future::Future;

/// The middle one, and the outermost ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without figures.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.collect();
        all.sort_by(f64::total_cmp);
        let (low, high) = (all.get(all.len().saturating_sub(1) / 2)?, all.get(all.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), least: *all.first()?, most: *all.last()? })
    }
}

/// Both halves of a pair, one after the other. Which comes first alternates with the pair's number: a machine that gets faster or slower favours
/// neither.
///
/// # Errors
/// If one of them fails.
pub(crate) async fn in_turn<T>(
    number: u32,
    one: impl Future<Output = anyhow::Result<T>>,
    other: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, T)> {
    if number.is_multiple_of(2) {
        let one = one.await?;
        Ok((one, other.await?))
    } else {
        let other = other.await?;
        Ok((one.await?, other))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{median:.2} ({least:.2} to {most:.2})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_pairs_is_told_with_the_outermost() {
        let found = Spread::of([0.7, 0.5, 0.9].into_iter());
        assert_eq!(found, Some(Spread { median: 0.7, least: 0.5, most: 0.9 }));
        let even = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!(even, Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
