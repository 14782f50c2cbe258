//! The seam between the commands and the kernel: an origin becomes an observation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{Origin, Record};
use crate::snapshot::Observation;

/// An observation and the name under which its network namespace was asked for.
pub struct Collected {
    pub observation: Observation,
    pub netns_name: Option<String>,
}

/// A flag that SIGINT and SIGTERM set; a second one ends the program at once.
///
/// # Errors
/// The kernel refused a handler.
pub fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, super::INTERRUPTED.into(), Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Observes this host, or replays the last window of a recording. `None` if it was interrupted before anything could be
/// judged.
///
/// # Errors
/// The namespace cannot be entered, or the recording is not sound.
pub fn observe(origin: &Origin, _stop: &Arc<AtomicBool>) -> anyhow::Result<Option<Collected>> {
    match origin {
        Origin::Live(_) => bail!("this host cannot be observed: the host is not plugged in yet"),
        Origin::Bundle(path) => {
            bail!("{}: the recording cannot be read: the host is not plugged in yet", path.display())
        }
    }
}

/// Records windows until the duration is over or the user interrupts; returns how many are complete.
///
/// # Errors
/// The file exists or cannot be written, or the namespace cannot be entered.
pub fn record(config: &Record, _stop: &Arc<AtomicBool>) -> anyhow::Result<usize> {
    bail!("{}: cannot record: the host is not plugged in yet", config.output.display())
}
