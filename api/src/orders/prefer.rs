//! `Prefer: wait=N` (RFC 7240): an answer that is held back until there is an outcome.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use domain_types::CustomerId;
use schemas::OrderState;
use tokio::time::Instant;

use crate::app::App;
use crate::orders::live::Place;
use crate::orders::model::Order;
use crate::wakeups::Following;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Waits that may be asked for, seconds.
const WAITS_S: std::ops::RangeInclusive<u8> = 1..=30;

/// A wait that was asked for and is granted.
#[derive(Debug)]
pub(crate) struct Wait {
    seconds: u8,
    deadline: Instant,
    _place: Place,
}

/// How long an answer was held back because its client wanted that; left in the answer's extensions, so that it does not
/// count as the api's own time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited(pub(crate) Duration);

impl Wait {
    /// The wait that the headers ask for, from now on; `None` without one, or when too many wait already, all together or of
    /// this customer: a preference need not be met.
    pub(crate) fn asked(headers: &HeaderMap, app: &App, customer: CustomerId) -> Option<Self> {
        let seconds = asked(headers)?;
        let place = app.live.wait(customer).ok()?;
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        Some(Self { seconds, deadline, _place: place })
    }

    /// Until when.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits until the order's saga has got somewhere; returns the order as it is then, or the newest known when time
    /// is up or the node ends.
    pub(crate) async fn outcome(
        &self,
        app: &App,
        following: &mut Following,
    ) -> Option<std::sync::Arc<Order>> {
        let settling = tokio::time::timeout_at(self.deadline, following.until(has_outcome));
        match app.live.end.run_until_cancelled(settling).await {
            Some(Ok(order)) => Some(order),
            Some(Err(_)) | None => following.newest(),
        }
    }

    /// Says in an answer that the preference was met, and how long it took.
    pub(crate) fn applied(&self, mut answer: Response, waited: Duration) -> Response {
        if let Ok(value) = HeaderValue::from_str(&format!("wait={}", self.seconds)) {
            answer.headers_mut().insert(PREFERENCE_APPLIED, value);
        }
        answer.extensions_mut().insert(Waited(waited));
        answer
    }
}

/// `201` once there is an outcome, else `202`.
pub(crate) fn status(order: &Order) -> StatusCode {
    if has_outcome(order) { StatusCode::CREATED } else { StatusCode::ACCEPTED }
}

/// Whether a customer knows what to do next: it is bought, to be paid, or will not be.
pub(crate) fn has_outcome(order: &Order) -> bool {
    match order.state {
        OrderState::Accepted | OrderState::Reserving | OrderState::Charging => order.is_final,
        OrderState::AwaitingPayment
        | OrderState::Paid
        | OrderState::Shipped
        | OrderState::Delivered
        | OrderState::ReturnRequested
        | OrderState::Compensating
        | OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => true,
    }
}

/// The seconds of the first `wait` in all `Prefer` headers; the first instance of a preference is the one that counts.
fn asked(headers: &HeaderMap) -> Option<u8> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let value = values.flat_map(|value| split(value, b',')).find_map(|preference| {
        // What follows a semicolon is a parameter of the preference.
        let preference = split(preference, b';').into_iter().next()?;
        let (name, value) = match preference.split_once('=') {
            Some((name, value)) => (name, value.trim()),
            None => (preference, ""),
        };
        name.trim().eq_ignore_ascii_case("wait").then_some(value)
    })?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let seconds = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())??;
    WAITS_S.contains(&seconds).then_some(seconds)
}

/// Splits at a separator that is not inside a quoted string.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character: char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return !quoted && character == char::from(separator),
        }
        false
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_found_among_other_preferences_and_bad_ones_are_no_wait() {
        let asked = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_str(value).unwrap());
            }
            asked(&headers)
        };
        for (values, seconds) in [
            (&["wait=10"][..], 10),
            (&["wait=1"], 1),
            (&["WAIT = 30"], 30),
            (&["wait=\"7\""], 7),
            (&["respond-async, wait=5"], 5),
            (&["return=minimal; foo=\"wait=3, x\"", "handling=lenient,wait=9;p=1"], 9),
            (&["note=\"a, wait=3 \\\" , wait=4\", wait=5"], 5),
            (&["wait=2, wait=8", "wait=9"], 2),
        ] {
            assert_eq!(asked(values), Some(seconds), "{values:?}");
        }
        for values in [
            &[][..],
            &["wait"],
            &["wait="],
            &["wait=\"\""],
            &["wait=0"],
            &["wait=31"],
            &["wait=-1"],
            &["wait=+5"],
            &["wait=1.5"],
            &["wait=99999999999999999999"],
            &["waiting=5"],
            &["note=\"wait=5\""],
            &["wait=x, wait=5"],
        ] {
            assert_eq!(asked(values), None, "{values:?}");
        }
    }
}
