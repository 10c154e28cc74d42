//! What reaches the terminal, and in which form.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;
use domain_types::Timestamp;
use serde::Serialize;

use crate::cli::{Color, OutputOptions};
use crate::failure::Failure;

/// Characters that move the cursor, ring, colour, or turn text around.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text of others, safe to be shown: what is not to be seen is escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hostile(character) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// JSON in which nothing hostile is left raw.
fn json_text<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::found(format!("the answer can't be written as JSON: {error}")))?;
    let mut out = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if is_hostile(character) && character != '\n' {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out.push('\n');
    Ok(out)
}

/// How a text is set off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Bold,
    Good,
    Bad,
    Faint,
}

/// Where answers go.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    pub(crate) json: bool,
    color: bool,
    zone: Tz,
}

impl Terminal {
    pub(crate) fn new(options: &OutputOptions) -> Result<Self, Failure> {
        let color = match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Ok(Self { json: options.json, color, zone: if options.utc { Tz::UTC } else { local_zone() } })
    }

    /// Prints lines, or nothing if nobody reads any more.
    #[allow(clippy::unused_self, reason = "the one place that prints")]
    pub(crate) fn line(&self, line: impl AsRef<str>) {
        let mut stdout = std::io::stdout().lock();
        let _closed = writeln!(stdout, "{}", line.as_ref());
    }

    /// Prints one JSON value.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = json_text(value)?;
        let mut stdout = std::io::stdout().lock();
        let _closed = stdout.write_all(text.as_bytes());
        Ok(())
    }

    /// An empty screen, if it is one.
    #[allow(clippy::unused_self, reason = "the one place that prints")]
    pub(crate) fn clear(&self) {
        if std::io::stdout().is_terminal() {
            let _closed = write!(std::io::stdout().lock(), "\x1b[H\x1b[2J");
        }
    }

    /// Prints one JSON value of many, on one line.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        // Newlines in texts are escaped: those that are left are layout.
        let text = json_text(value)?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        self.line(lines.concat());
        Ok(())
    }

    pub(crate) fn toned(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Bold => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A time of day, with its date if that is another one than today's.
    pub(crate) fn time(&self, time: Timestamp) -> String {
        let time = time.to_utc().with_timezone(&self.zone);
        time.format("%Y-%m-%d %H:%M:%S%.3f %Z").to_string()
    }

    /// Whether somebody can be asked.
    pub(crate) fn can_ask() -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks; anything but a yes is a no.
    pub(crate) fn ask(question: &str) -> bool {
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }

    /// Prints a table whose columns are as wide as their cells.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let print = |cells: Vec<&str>| {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(cells) {
                let _ = write!(line, "{cell:width$}  ");
            }
            line.trim_end().to_owned()
        };
        self.line(self.toned(Tone::Bold, &print(head.to_vec())));
        for row in rows {
            self.line(print(row.iter().map(String::as_str).collect()));
        }
    }
}

/// The zone of `TZ`, else of this machine, else UTC.
fn local_zone() -> Tz {
    let named = std::env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
    let name = named.filter(|name| !name.is_empty()).or_else(|| iana_time_zone::get_timezone().ok());
    name.and_then(|name| Tz::from_str(&name).ok()).unwrap_or(Tz::UTC)
}

/// `1d 3h`, `5m 12s`, `230ms`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, small: u64, names: (&str, &str)| {
        if small == 0 { format!("{big}{}", names.0) } else { format!("{big}{} {small}{}", names.0, names.1) }
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, seconds % 60, ("m", "s")),
        3_600..86_400 => two(seconds / 3_600, seconds % 3_600 / 60, ("h", "m")),
        _ => two(seconds / 86_400, seconds % 86_400 / 3_600, ("d", "h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_or_turns_text_reaches_the_terminal() {
        let hostile = "a\u{1b}[2Jb\u{9b}c\rd\u{202e}e\u{0}f\u{7f}g\nh";
        let shown = plain(hostile);
        assert!(!shown.chars().any(is_hostile), "{shown:?}");
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{9b}c\\u{d}d\\u{202e}e\\u{0}f\\u{7f}g\\u{a}h");
        let text = json_text(&hostile).unwrap();
        assert!(!text.trim_end().chars().any(is_hostile), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let shown = [0, 59, 60, 61, 3_600, 90_061].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0ms", "59s", "1m", "1m 1s", "1h", "1d 1h"]);
    }
}
