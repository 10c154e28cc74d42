//! How far a replay is, and what it took.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says how far it is.
pub(super) struct Progress {
    pub(super) inputs: Arc<AtomicU64>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    /// `already` of `total` records were read by an earlier run.
    pub(super) fn start(wanted: bool, total: u64, already: u64) -> Self {
        let inputs = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&inputs);
        let show = async move {
            let began = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let done = seen.load(Ordering::Relaxed).max(1);
                let rate = done as f64 / began.elapsed().as_secs_f64();
                let left = total.saturating_sub(already + done) as f64 / rate;
                eprint!("\r{} of {total} records, {rate:.0}/s, {left:.0} s left   ", already + done);
            }
        };
        let task = (wanted && std::io::stderr().is_terminal()).then(|| tokio::spawn(show));
        Self { inputs, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            eprintln!();
        }
    }
}

/// The largest resident memory so far, as Linux says; 0 if it does not.
pub(super) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}
