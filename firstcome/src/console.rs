//! What `up` says while it works: a spinner for people, plain lines for files.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shared by everything that reports progress.
#[derive(Clone)]
pub(crate) struct Console {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    bars: Option<MultiProgress>,
    running: HashMap<String, (Instant, Option<ProgressBar>)>,
}

impl Console {
    pub(crate) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { inner: Arc::new(Mutex::new(Inner { bars, running: HashMap::new() })) }
    }

    /// `what` is now at `step`.
    pub(crate) fn step(&self, what: &str, step: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.running.contains_key(what) {
            let bar = inner.bars.as_ref().map(|bars| bars.add(spinner(what)));
            inner.running.insert(what.to_owned(), (Instant::now(), bar));
        }
        match inner.running.get(what) {
            Some((_, Some(bar))) => bar.set_message(step.to_owned()),
            _ => println!("  {what:<21} {step}"),
        }
    }

    /// `what` is done.
    pub(crate) fn done(&self, what: &str, outcome: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, bar) = inner.running.remove(what).unwrap_or((Instant::now(), None));
        let line = format!("  {what:<21} {outcome} ({:.1} s)", began.elapsed().as_secs_f64());
        match bar {
            Some(bar) => {
                bar.set_style(plain());
                bar.finish_with_message(line);
            }
            None => println!("{line}"),
        }
    }

    /// A line of its own.
    pub(crate) fn say(&self, line: &str) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.bars {
            Some(bars) => bars.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }
}

/// Counts up to `length`; hidden when nobody looks.
pub(crate) fn count_bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<21} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}
