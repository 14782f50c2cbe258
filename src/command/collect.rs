//! From an origin to an observation: a live host, or a recording that stands in for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{Live, Origin, Record};
use crate::filter::Filter;
use crate::host::{BundleHost, LiveHost, RecordingFile, RecordingHost, namespace};
use crate::observe::{Plan, observe as observe_host};
use crate::snapshot::Observation;
use crate::source::process;

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

/// SIGINT and SIGTERM end the program at once: where there is nothing to finish, and opening a pipe may take for ever.
///
/// # Errors
/// The kernel refused a handler.
pub fn end_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let armed = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, super::INTERRUPTED.into(), Arc::clone(&armed))?;
    }
    Ok(Arc::default())
}

/// Observes this host, or replays a recording. `None` if it was interrupted before there was a whole window.
///
/// # Errors
/// The namespace cannot be entered, the process that was asked for does not exist, or the recording is not sound.
pub fn observe(origin: &Origin, filter: &Filter, stop: &Arc<AtomicBool>) -> anyhow::Result<Option<Collected>> {
    match origin {
        Origin::Live(live) => {
            let netns_name = enter(live)?;
            let mut host = LiveHost::new(Arc::clone(stop));
            // Before the wait: of a process that is not there nothing can be learnt.
            if let Some(pid) = filter.pid.filter(|pid| !process::exists(&mut host, *pid)) {
                anyhow::bail!("--pid: no process {pid} on this host");
            }
            let observation = observe_host(&mut host, &plan(live))?;
            Ok((!stop.load(Ordering::Relaxed)).then_some(Collected { observation, netns_name }))
        }
        Origin::Bundle(path) => Ok(Some(Collected { observation: replay(path)?, netns_name: None })),
    }
}

/// The observation that a recording holds.
///
/// # Errors
/// The recording is not sound.
pub fn replay(path: &Path) -> anyhow::Result<Observation> {
    let mut bundle = BundleHost::open(path)?;
    let window = bundle.windows().first().with_context(|| format!("{}: no window was recorded", path.display()))?;
    let plan = Plan::scan(window.planned);
    Ok(observe_host(&mut bundle, &plan)?)
}

/// Records until the duration is over or the user interrupts. What was recorded so far is kept either way.
///
/// # Errors
/// The file exists or cannot be written, or the namespace cannot be entered.
pub fn record(config: &Record, stop: &Arc<AtomicBool>) -> anyhow::Result<Observation> {
    // The file first: a name that cannot be written should not cost half a minute.
    let file = RecordingFile::create(&config.output, false)?;
    enter(&config.live)?;
    let mut host = RecordingHost::new(LiveHost::new(Arc::clone(stop)), file, config.redact);
    let plan = Plan { tick_every: Some(config.interval), ..plan(&config.live) };
    let observed = observe_host(&mut host, &plan);
    host.finish().and_then(RecordingFile::persist)?;
    Ok(observed?)
}

fn plan(live: &Live) -> Plan {
    Plan { events: live.events, ..Plan::scan(live.duration) }
}

fn enter(live: &Live) -> anyhow::Result<Option<String>> {
    match &live.netns {
        Some(spec) => Ok(namespace::enter(spec)?.name),
        None => Ok(None),
    }
}
