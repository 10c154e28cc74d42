//! The way out: a mail server, or a folder.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use domain_types::MessageId;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::response::Severity;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::Semaphore;

use super::settings::MailSettings;
use super::store::Mail;

/// Mails that are sent at the same time, over all partitions.
const AT_ONCE: usize = 8;
/// How long one exchange with the mail server may take.
const WITHIN: Duration = Duration::from_secs(10);

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The server has it.
    Taken,
    /// The server will never take it.
    Refused,
    /// Try again later.
    NotNow,
}

/// Sends mails.
pub(crate) struct Mailer {
    from: Mailbox,
    way: Way,
    turns: Semaphore,
    pub(super) in_hand: IntGauge,
    outcomes: IntCounterVec,
}

enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(PathBuf),
}

impl Mailer {
    /// Makes no connection yet.
    ///
    /// # Errors
    /// If the settings can't be used; says which and why.
    pub(crate) fn new(settings: &MailSettings, registry: &Registry) -> anyhow::Result<Self> {
        let from = settings.from.parse().with_context(|| format!("mail.from: {:?}", settings.from))?;
        let way = match (&settings.smtp_url, &settings.mailbox) {
            (Some(url), None) => Way::Smtp(smtp(url, settings.smtp_password_file.as_deref())?),
            (None, Some(folder)) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("mail.mailbox: cannot make {}", folder.display()))?;
                Way::Folder(folder.clone())
            }
            (None, None) | (Some(_), Some(_)) => {
                anyhow::bail!("mail: give either smtp_url or mailbox")
            }
        };
        let in_hand = IntGauge::new("api_mails_in_hand", "Mails that are being sent")?;
        let outcomes = IntCounterVec::new(
            Opts::new("api_mails_total", "Tries to send a mail by what became of them"),
            &["outcome"],
        )?;
        registry.register(Box::new(in_hand.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        Ok(Self { from, way, turns: Semaphore::new(AT_ONCE), in_hand, outcomes })
    }

    /// Sends one mail, when its turn comes. Cancelled in the middle it may have been taken.
    pub(super) async fn send(&self, mail: &Mail) -> Sent {
        let Ok(_turn) = self.turns.acquire().await else { return Sent::NotNow };
        self.in_hand.inc();
        let sent = self.try_send(mail).await;
        self.in_hand.dec();
        let label = match sent {
            Sent::Taken => "sent",
            Sent::Refused => "refused",
            Sent::NotNow => "not_now",
        };
        self.outcomes.with_label_values(&[label]).inc();
        sent
    }

    async fn try_send(&self, mail: &Mail) -> Sent {
        let message = match self.message(mail) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(order_id = %mail.key.order_id, %error, "a mail can't be written");
                return Sent::Refused;
            }
        };
        match &self.way {
            Way::Folder(folder) => {
                let file = folder.join(format!("{}.eml", mail.message_id.uuid()));
                match tokio::fs::write(&file, message.formatted()).await {
                    Ok(()) => Sent::Taken,
                    Err(error) => {
                        tracing::warn!(%error, file = %file.display(), "a mail can't be left in the mailbox");
                        Sent::NotNow
                    }
                }
            }
            Way::Smtp(transport) => match tokio::time::timeout(WITHIN, transport.send(message)).await {
                Ok(Ok(_response)) => Sent::Taken,
                Ok(Err(error)) => refusal(&error, mail),
                Err(_elapsed) => Sent::NotNow,
            },
        }
    }

    /// The mail, under an id that its event makes: whoever gets it twice can tell.
    fn message(&self, mail: &Mail) -> anyhow::Result<Message> {
        let id = message_id(mail.message_id, self.from.email.domain());
        let message = Message::builder()
            .message_id(Some(id))
            .from(self.from.clone())
            .to(Mailbox::new(None, mail.address.as_str().parse()?))
            .subject(mail.subject.clone())
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())?;
        Ok(message)
    }
}

fn message_id(event: MessageId, domain: &str) -> String {
    format!("<{}@{domain}>", event.uuid())
}

fn smtp(
    url: &str,
    password_file: Option<&std::path::Path>,
) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    let builder =
        AsyncSmtpTransport::<Tokio1Executor>::from_url(url).context("mail.smtp_url can't be used")?;
    let builder = match password_file {
        None => builder,
        Some(path) => {
            let password = std::fs::read_to_string(path)
                .with_context(|| format!("mail.smtp_password_file: cannot read {}", path.display()))?;
            let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
            let user = user.context("mail.smtp_url names no user for the password")?;
            builder.credentials(Credentials::new(user.to_owned(), password.trim_end().to_owned()))
        }
    };
    Ok(builder.timeout(Some(WITHIN)).build())
}

/// A server that refuses this one mail for good, told apart from one that refuses us: wrong passwords get mended.
fn refusal(error: &lettre::transport::smtp::Error, mail: &Mail) -> Sent {
    let is_for_good = error.status().is_some_and(|code| {
        let number: u16 = code.into();
        code.severity == Severity::PermanentNegativeCompletion && (550..=559).contains(&number)
    });
    tracing::warn!(order_id = %mail.key.order_id, code = error.status().map(u16::from), is_for_good, "a mail was not taken");
    if is_for_good { Sent::Refused } else { Sent::NotNow }
}
