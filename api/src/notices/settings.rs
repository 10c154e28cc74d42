//! Settings of notices by mail.

use std::path::PathBuf;

use serde::Deserialize;

/// How mail goes out: by `smtp_url`, or into the folder `mailbox`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// `From` of every mail.
    pub from: String,
    /// `smtps://USER@HOST:465`, or `smtp://USER@HOST:587?tls=required`; without `tls` nothing is encrypted.
    #[serde(default)]
    pub smtp_url: Option<String>,
    /// A file with the user's password.
    #[serde(default)]
    pub smtp_password_file: Option<PathBuf>,
    /// For development: mails become files in this folder.
    #[serde(default)]
    pub mailbox: Option<PathBuf>,
}
