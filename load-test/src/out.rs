//! What is printed for whoever asked.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context;

/// Prints a result. Somebody who reads no further (`| head`) has enough.
///
/// # Errors
/// If it can't be written, but for that.
pub(crate) fn say(result: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{result}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the result can't be printed"),
    }
}
