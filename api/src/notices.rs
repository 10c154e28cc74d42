//! Notices by mail: each payment outcome that `order-events` tells goes to the address that the order's customer had in the
//! token. A consumer of its own, which may be down for a day: nothing waits for it. At least once: a mail whose
//! answer was not committed is sent again, under the same `Message-ID`.

mod handler;
mod mailer;
mod settings;
mod store;
mod wording;

pub(crate) use handler::Notices;
pub(crate) use mailer::Mailer;
pub use settings::MailSettings;
pub(crate) use store::keep_addresses;

/// An address that mail can be sent to, from a token. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MailAddress(String);

impl MailAddress {
    /// `None` if nothing can be sent there.
    pub(crate) fn new(text: &str) -> Option<Self> {
        text.parse::<lettre::Address>().is_ok().then(|| Self(text.to_owned()))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for MailAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailAddress(..)")
    }
}
