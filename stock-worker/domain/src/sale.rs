//! Sale windows: when a product is sold.

use chrono::{Days, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;
use domain_types::Timestamp;
use schemas::{DailySale, Sale};

/// Why a sale window is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSale {
    /// Neither `opens_at` and `closes_at`, nor `daily`; or both.
    #[error("a sale is either opens_at and closes_at, or daily")]
    NotOneForm,
    /// `opens_at` is not before `closes_at`.
    #[error("opens_at is not before closes_at")]
    ClosesBeforeItOpens,
    /// `daily.opens` is no `HH:MM`.
    #[error("daily.opens is not HH:MM")]
    Opens,
    /// `daily.closes` is no `HH:MM`.
    #[error("daily.closes is not HH:MM")]
    Closes,
    /// `daily.opens` and `daily.closes` are the same.
    #[error("a daily sale opens and closes at different times")]
    Empty,
    /// `daily.time_zone` is no IANA time zone.
    #[error("daily.time_zone is not a time zone")]
    TimeZone,
}

impl InvalidSale {
    /// JSON pointer of the field to blame, within the product.
    pub fn pointer(self) -> &'static str {
        match self {
            Self::NotOneForm => "/sale",
            Self::ClosesBeforeItOpens => "/sale/closes_at",
            Self::Opens => "/sale/daily/opens",
            Self::Closes | Self::Empty => "/sale/daily/closes",
            Self::TimeZone => "/sale/daily/time_zone",
        }
    }
}

/// A valid sale window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleWindow {
    /// From one instant to another.
    Between {
        /// The first instant of the sale.
        opens_at: Timestamp,
        /// The first instant after it.
        closes_at: Timestamp,
    },
    /// Every day, by the clock of a place; over midnight if it closes earlier than it opens.
    Daily {
        /// What the clock shows when it opens.
        opens: NaiveTime,
        /// What the clock shows when it closes.
        closes: NaiveTime,
        /// Whose clock.
        time_zone: Tz,
    },
}

/// Whether a sale is on, and when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleState {
    /// It is on.
    Open {
        /// The first instant after it; `None`: it does not end.
        until: Option<Timestamp>,
    },
    /// It is not.
    Closed {
        /// When it begins; `None`: never again.
        opens_at: Option<Timestamp>,
    },
}

/// Whether a product is sold at an instant, and when that changes. Without a sale window it always is; with
/// one that is not valid it never is.
pub fn sale_state(sale: Option<&Sale>, at: Timestamp) -> SaleState {
    match sale.map(SaleWindow::try_from) {
        None => SaleState::Open { until: None },
        Some(Ok(window)) => window.at(at),
        Some(Err(_)) => SaleState::Closed { opens_at: None },
    }
}

/// Whether a product is sold at an instant. See [`sale_state`].
pub fn is_on_sale(sale: Option<&Sale>, at: Timestamp) -> bool {
    match sale_state(sale, at) {
        SaleState::Open { .. } => true,
        SaleState::Closed { .. } => false,
    }
}

impl TryFrom<&Sale> for SaleWindow {
    type Error = InvalidSale;

    fn try_from(sale: &Sale) -> Result<Self, InvalidSale> {
        match (sale.opens_at, sale.closes_at, &sale.daily) {
            (Some(opens_at), Some(closes_at), None) if opens_at < closes_at => {
                Ok(Self::Between { opens_at, closes_at })
            }
            (Some(_), Some(_), None) => Err(InvalidSale::ClosesBeforeItOpens),
            (None, None, Some(daily)) => Self::daily(daily),
            (None | Some(_), None | Some(_), None | Some(_)) => Err(InvalidSale::NotOneForm),
        }
    }
}

/// How many days from the present one a daily window is looked for: yesterday's may still be open, and the
/// next few may fall into a skip of the clock (Samoa once skipped a whole day).
const DAYS_AHEAD: u64 = 4;
/// The longest skip of a clock that is looked through, minutes.
const LONGEST_SKIP_MINUTES: i64 = 26 * 60;
/// Instants beyond these are in no window: calendars end. The years 0000 and 9999.
const CALENDAR_MILLIS: std::ops::Range<i64> = -62_167_219_200_000..253_370_764_800_000;

impl SaleWindow {
    fn daily(daily: &DailySale) -> Result<Self, InvalidSale> {
        let opens = wall_clock(&daily.opens).ok_or(InvalidSale::Opens)?;
        let closes = wall_clock(&daily.closes).ok_or(InvalidSale::Closes)?;
        if opens == closes {
            return Err(InvalidSale::Empty);
        }
        let time_zone = daily.time_zone.parse().map_err(|_no_such_zone| InvalidSale::TimeZone)?;
        Ok(Self::Daily { opens, closes, time_zone })
    }

    /// Whether the sale is on at an instant, and when that changes.
    pub fn at(&self, at: Timestamp) -> SaleState {
        match *self {
            Self::Between { opens_at, .. } if at < opens_at => SaleState::Closed { opens_at: Some(opens_at) },
            Self::Between { closes_at, .. } if at < closes_at => SaleState::Open { until: Some(closes_at) },
            Self::Between { .. } => SaleState::Closed { opens_at: None },
            Self::Daily { opens, closes, time_zone } => {
                daily_at(opens, closes, time_zone, at).unwrap_or(SaleState::Closed { opens_at: None })
            }
        }
    }
}

/// `None` at the ends of the calendar.
fn daily_at(opens: NaiveTime, closes: NaiveTime, zone: Tz, at: Timestamp) -> Option<SaleState> {
    if !CALENDAR_MILLIS.contains(&at.as_millis()) {
        return None;
    }
    let utc = at.to_utc().naive_utc();
    let here = utc.checked_add_offset(zone.offset_from_utc_datetime(&utc).fix())?;
    let yesterday = here.date().checked_sub_days(Days::new(1))?;
    for days in 0..=DAYS_AHEAD {
        let day = yesterday.checked_add_days(Days::new(days))?;
        let closing_day = if closes < opens { day.checked_add_days(Days::new(1))? } else { day };
        let (from, until) = (first_instant(day, opens, zone)?, first_instant(closing_day, closes, zone)?);
        if from >= until || at >= until {
            continue;
        }
        return Some(if at < from {
            SaleState::Closed { opens_at: Some(from) }
        } else {
            SaleState::Open { until: Some(until) }
        });
    }
    None
}

/// The first instant at which the clock of a place shows that day and time; if it skips them, the first one
/// after the skip.
fn first_instant(day: NaiveDate, time: NaiveTime, zone: Tz) -> Option<Timestamp> {
    let wanted = day.and_time(time);
    (0..=LONGEST_SKIP_MINUTES).find_map(|minutes| {
        let shown = wanted.checked_add_signed(TimeDelta::minutes(minutes))?;
        let instant = zone.from_local_datetime(&shown).earliest()?;
        Some(Timestamp::from_millis(instant.timestamp_millis()))
    })
}

/// `HH:MM`, two digits each.
fn wall_clock(text: &str) -> Option<NaiveTime> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    NaiveTime::from_hms_opt(two_digits(hours)?, two_digits(minutes)?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn daily(opens: &str, closes: &str, zone: &str) -> Sale {
        let daily = DailySale { opens: opens.into(), closes: closes.into(), time_zone: zone.into() };
        Sale { opens_at: None, closes_at: None, daily: Some(daily) }
    }

    fn between(opens_at: Option<&str>, closes_at: Option<&str>) -> Sale {
        Sale { opens_at: opens_at.map(time), closes_at: closes_at.map(time), daily: None }
    }

    fn open_until(sale: &Sale, at: &str, until: &str) {
        assert_eq!(sale_state(Some(sale), time(at)), SaleState::Open { until: Some(time(until)) }, "at {at}");
    }

    fn closed_until(sale: &Sale, at: &str, opens_at: &str) {
        let closed = SaleState::Closed { opens_at: Some(time(opens_at)) };
        assert_eq!(sale_state(Some(sale), time(at)), closed, "at {at}");
    }

    #[test]
    fn only_one_complete_form_is_a_sale() {
        let both =
            Sale { opens_at: Some(time("2026-01-01T00:00:00Z")), ..daily("14:00", "15:00", "Asia/Seoul") };
        let cases = [
            (both, InvalidSale::NotOneForm),
            (Sale { opens_at: None, closes_at: None, daily: None }, InvalidSale::NotOneForm),
            (between(Some("2026-01-01T00:00:00Z"), None), InvalidSale::NotOneForm),
            (between(None, Some("2026-01-01T00:00:00Z")), InvalidSale::NotOneForm),
            (
                between(Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00Z")),
                InvalidSale::ClosesBeforeItOpens,
            ),
            (daily("14:00", "14:00", "Asia/Seoul"), InvalidSale::Empty),
            (daily("14:00", "15:00", "Asia/Atlantis"), InvalidSale::TimeZone),
            (daily("14:00", "24:00", "Asia/Seoul"), InvalidSale::Closes),
            (daily("1:00", "15:00", "Asia/Seoul"), InvalidSale::Opens),
            (daily("+1:00", "15:00", "Asia/Seoul"), InvalidSale::Opens),
            (daily("14:00:00", "15:00", "Asia/Seoul"), InvalidSale::Opens),
        ];
        for (sale, why) in cases {
            assert_eq!(SaleWindow::try_from(&sale), Err(why), "{sale:?}");
            assert!(!is_on_sale(Some(&sale), time("2026-01-01T05:30:00Z")), "{sale:?}");
        }
    }

    #[test]
    fn a_window_includes_its_first_instant_and_not_its_last() {
        let sale = between(Some("2026-11-21T05:00:00Z"), Some("2026-11-21T06:00:00Z"));
        closed_until(&sale, "2026-11-21T04:59:59.999Z", "2026-11-21T05:00:00Z");
        open_until(&sale, "2026-11-21T05:00:00Z", "2026-11-21T06:00:00Z");
        open_until(&sale, "2026-11-21T05:59:59.999Z", "2026-11-21T06:00:00Z");
        let over = sale_state(Some(&sale), time("2026-11-21T06:00:00Z"));
        assert_eq!(over, SaleState::Closed { opens_at: None });
        assert_eq!(sale_state(None, time("2026-11-21T06:00:00Z")), SaleState::Open { until: None });
    }

    #[test]
    fn a_daily_window_follows_the_clock_of_its_place() {
        let sale = daily("14:00", "15:00", "Asia/Seoul");
        closed_until(&sale, "2026-11-21T04:59:59.999Z", "2026-11-21T05:00:00Z");
        open_until(&sale, "2026-11-21T05:00:00Z", "2026-11-21T06:00:00Z");
        closed_until(&sale, "2026-11-21T06:00:00Z", "2026-11-22T05:00:00Z");
    }

    #[test]
    fn a_daily_window_may_go_over_midnight() {
        let sale = daily("23:00", "01:00", "Asia/Seoul");
        open_until(&sale, "2026-11-21T14:00:00Z", "2026-11-21T16:00:00Z");
        open_until(&sale, "2026-11-21T15:30:00Z", "2026-11-21T16:00:00Z");
        closed_until(&sale, "2026-11-21T16:00:00Z", "2026-11-22T14:00:00Z");
    }

    #[test]
    fn a_skipped_hour_shortens_or_drops_the_window_of_that_day() {
        // Berlin, 2026-03-29: 01:59:59 +01:00 is followed by 03:00:00 +02:00 (01:00:00Z).
        let half = daily("02:30", "03:30", "Europe/Berlin");
        closed_until(&half, "2026-03-29T00:59:59.999Z", "2026-03-29T01:00:00Z");
        open_until(&half, "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z");
        let gone = daily("02:15", "02:45", "Europe/Berlin");
        closed_until(&gone, "2026-03-29T00:30:00Z", "2026-03-30T00:15:00Z");
        closed_until(&gone, "2026-03-29T01:00:00Z", "2026-03-30T00:15:00Z");
    }

    #[test]
    fn a_repeated_hour_opens_a_window_once() {
        // Berlin, 2026-10-25: 02:59:59 +02:00 is followed by 02:00:00 +01:00 (01:00:00Z).
        let sale = daily("02:15", "02:45", "Europe/Berlin");
        open_until(&sale, "2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z");
        closed_until(&sale, "2026-10-25T01:15:00Z", "2026-10-26T01:15:00Z");
        let longer = daily("02:30", "03:30", "Europe/Berlin");
        open_until(&longer, "2026-10-25T01:15:00Z", "2026-10-25T02:30:00Z");
    }

    #[test]
    fn a_skipped_day_and_the_ends_of_time_do_no_harm() {
        // Samoa skipped 2011-12-30: 2011-12-29T23:59:59 -10:00 is followed by 2011-12-31T00:00:00 +14:00.
        let sale = daily("14:00", "15:00", "Pacific/Apia");
        closed_until(&sale, "2011-12-30T09:00:00Z", "2011-12-31T00:00:00Z");
        for millis in [i64::MIN, -62_167_219_200_001, 253_370_764_800_000, i64::MAX] {
            let at = Timestamp::from_millis(millis);
            assert!(matches!(sale_state(Some(&sale), at), SaleState::Closed { .. }), "{at}");
        }
    }
}
