//! One line on standard error while a person waits, gone when the wait is over.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::runtime::thread;

/// Shown until it is dropped.
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

/// Waits shorter than this need no explanation.
const PATIENCE: Duration = Duration::from_secs(1);

impl Progress {
    /// Counts `whole` down, if `wanted` and if it is worth it.
    pub fn start(what: &'static str, whole: Duration, wanted: bool) -> Self {
        if !wanted || whole < PATIENCE {
            return Self(None);
        }
        let (stop, stopped) = channel();
        let started = Instant::now();
        let thread = thread::start("progress", move || {
            loop {
                let left = whole.saturating_sub(started.elapsed());
                let text = match left.as_secs_f64().ceil() {
                    0.0 => format!("{what}: evaluating"),
                    seconds => format!("{what}: {seconds:.0} s left"),
                };
                // Progress that cannot be written is no reason to stop.
                let _ = write!(std::io::stderr(), "\r\x1b[K{text}").and_then(|()| std::io::stderr().flush());
                if stopped.recv_timeout(Duration::from_millis(250)) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        });
        // Where no thread can be started nothing is counted down.
        Self(thread.ok().map(|thread| (stop, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}
