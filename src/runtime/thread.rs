//! Threads that may not start: where the limit of processes is reached, or that of the control group.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts one, named as ps(1) and gdb show it.
///
/// # Errors
/// The kernel gives no thread.
pub fn start<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|error| refused(&error))
}

/// What it means where a thread is needed.
pub fn refused(error: &io::Error) -> io::Error {
    let text = format!("no thread can be started: {error} (limits: ulimit -u, and pids.max of the control group)");
    io::Error::new(error.kind(), text)
}
