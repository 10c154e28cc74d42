//! An owner's task: what the runtime does around the owner's steps, one step at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use domain_types::Timestamp;
use futures::FutureExt;
use messaging::Limits;
use messaging::owner::{Now, Owner, Stepped};

use crate::ports::{Service, VirtualPorts};
use crate::world::{EPOCH_MS, lock, wall_clock};

/// What a task waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// Nothing: it may run.
    Ready,
    /// A time.
    Until(i64),
    /// A time, or records at this offset, or to be woken.
    Records { until: i64, next: i64 },
}

/// The scheduler's side of a task.
#[derive(Debug)]
pub(crate) struct Control {
    wait: Mutex<Wait>,
    pub(crate) stop: AtomicBool,
    pub(crate) woken: AtomicBool,
    pub(crate) retake: AtomicBool,
    /// The task has ended.
    pub(crate) ended: AtomicBool,
}

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wait: Mutex::new(Wait::Ready),
            stop: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            retake: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    pub(crate) fn wait(&self) -> Wait {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, wait: Wait) {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    /// A point at which anything else may happen: others run, this process is killed or frozen.
    pub(crate) async fn point(&self) {
        self.set(Wait::Ready);
        Once(false).await;
    }

    async fn until(&self, wait: Wait) {
        self.set(wait);
        Once(false).await;
        self.set(Wait::Ready);
    }
}

struct Once(bool);

impl Future for Once {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        Poll::Pending
    }
}

fn limits() -> Limits {
    Limits {
        batch_records: 6,
        pace_burst: 1_000_000,
        pace_per_second: 1_000_000,
        back_off_max: Duration::from_millis(200),
        outbox_quiet: Duration::from_millis(200),
        ..Limits::default()
    }
}

/// Longest sleep of a task: the log may have been stalled.
const LIVENESS_MS: i64 = 2_000;

/// Owns a partition until it is told to stop, once its predecessors in the same process have ended. `Err`: it can't go
/// on, and why.
pub(crate) async fn own<S: Service>(
    ports: VirtualPorts<S>,
    predecessors: Vec<Arc<Control>>,
) -> Result<(), String> {
    let (world, control, topic, partition) =
        (ports.world.clone(), Arc::clone(&ports.control), S::TOPIC, ports.partition);
    while predecessors.iter().any(|before| !before.ended.load(Ordering::Relaxed)) {
        let until = lock(&world).now_ms + 10;
        control.until(Wait::Until(until)).await;
    }
    let mut owner = Owner::new(ports, limits());
    loop {
        if control.stop.load(Ordering::Relaxed) {
            while owner.has_unpublished() {
                if let Stepped::BackOff(pause) = owner.publish().await {
                    let until = lock(&world).now_ms + millis(pause);
                    control.until(Wait::Until(until)).await;
                }
            }
            return Ok(());
        }
        if control.retake.swap(false, Ordering::Relaxed) {
            owner.retake();
        }
        if control.woken.swap(false, Ordering::Relaxed) {
            owner.wake();
        }
        if owner.is_reading() && owner.queued() < 24 {
            let records = owner.ports.fetch();
            owner.offer(records);
        }
        let now = Now {
            wall: wall_clock(),
            elapsed: Duration::from_millis(u64::try_from(lock(&world).now_ms - EPOCH_MS).unwrap_or(0)),
        };
        match owner.step(now).await {
            Stepped::Progress => control.point().await,
            Stepped::Idle(wait) => {
                let until =
                    lock(&world).now_ms + wait.map_or(LIVENESS_MS, |wait| millis(wait).clamp(1, LIVENESS_MS));
                let next = owner.ports.cursor();
                let is_behind = owner.is_behind(lock(&world).end(topic, partition));
                if is_behind && next >= lock(&world).end(topic, partition) {
                    owner.read_again();
                    continue;
                }
                control.until(Wait::Records { until, next }).await;
            }
            Stepped::BackOff(pause) => {
                let until = lock(&world).now_ms + millis(pause);
                control.until(Wait::Until(until)).await;
            }
            Stepped::Stopped(error) => return Err(error.to_string()),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A task of a process.
pub(crate) struct Task {
    pub(crate) process: usize,
    pub(crate) partition: i32,
    pub(crate) producer: u64,
    pub(crate) control: Arc<Control>,
    pub(crate) waker: messaging::Waker,
    pub(crate) future: Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
    /// It was told by the group that it does not own the partition any more, and has not heard it yet.
    pub(crate) revoked: bool,
}

impl Task {
    /// Whether it would do anything if it ran now.
    pub(crate) fn is_runnable(&self, now_ms: i64, end: i64) -> bool {
        if self.waker.woken().now_or_never().is_some() {
            self.control.woken.store(true, Ordering::Relaxed);
        }
        let called = [&self.control.stop, &self.control.woken, &self.control.retake];
        match self.control.wait() {
            Wait::Ready => true,
            Wait::Until(until) => now_ms >= until,
            Wait::Records { until, next } => {
                now_ms >= until || end > next || called.iter().any(|flag| flag.load(Ordering::Relaxed))
            }
        }
    }

    /// When it wants to run at the latest.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        match self.control.wait() {
            Wait::Ready => None,
            Wait::Until(until) | Wait::Records { until, .. } => Some(until),
        }
    }
}

/// The time as a machine's clock shows it.
pub(crate) fn at(now_ms: i64, off_ms: i64) -> i64 {
    Timestamp::from_millis(now_ms + off_ms).as_millis()
}
