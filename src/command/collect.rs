//! From an origin to an observation: a live host, or a recording that stands in for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ask::Probe;
use crate::command::config::{Origin, Record};
use crate::diagnosis::filter::Filter;
use crate::input::{self, Namespace, Opened, Stored};
use crate::observation::Observation;
use crate::output::say;
use crate::recording::{RecordingFile, RecordingHost};
use crate::session::observe as observe_host;
use crate::source::process;
use crate::timeline::{Driver, Next};
use crate::value::Stop;
use crate::value::escape::visible;

/// Opens an origin for one who may ask about a process: on a live host it has to exist. A recording that was cut off is said
/// to be.
///
/// # Errors
/// The origin cannot be opened, or there is no such process.
pub fn open(origin: &Origin, filter: &Filter, stop: &Stop) -> anyhow::Result<Opened> {
    let mut opened = input::open(origin, stop)?;
    match origin {
        Origin::Live(_) => must_exist(&mut *opened.host, filter)?,
        Origin::Recording(path) | Origin::Stored(Stored { directory: path, .. }) => broken(&opened, path),
        Origin::Given(given) => given.what.iter().for_each(|path| broken(&opened, path)),
    }
    Ok(opened)
}

/// Says where evidence from elsewhere ends before its end.
fn broken(opened: &Opened, path: &Path) {
    let status = opened.plan.covers.status.as_ref();
    if let Some(failure) = status.and_then(|status| status.failure.as_ref()) {
        say(format_args!("rstdoctor: {}: {}", visible(&path.display().to_string()), visible(&failure.reason)));
    }
}

/// What was observed.
pub struct Collected {
    pub observation: Observation,
    /// It ended early.
    pub interrupted: bool,
}

/// Observes this host, or replays a recording.
///
/// # Errors
/// See [`open`].
pub fn observe(origin: &Origin, filter: &Filter, stop: &Stop) -> anyhow::Result<Collected> {
    let mut opened = open(origin, filter, stop)?;
    let observation = observe_host(&mut *opened.host, &opened.plan)?;
    say_if_gone(&opened.namespace);
    Ok(Collected { observation, interrupted: stop.load(Ordering::Relaxed) })
}

/// Says that the namespace that was asked for went away in the meantime.
fn say_if_gone(namespace: &Namespace) {
    if !namespace.is_reachable() {
        say(format_args!("rstdoctor: {}", Namespace::GONE));
    }
}

/// What was named is not on this host.
#[derive(Debug, thiserror::Error)]
#[error("--pid: no process {0} on this host")]
pub struct Absent(u32);

/// Before any wait: of a process that is not there nothing can be learnt.
fn must_exist(probe: &mut dyn Probe, filter: &Filter) -> anyhow::Result<()> {
    match filter.pid.filter(|pid| !process::exists(probe, *pid)) {
        Some(pid) => Err(Absent(pid).into()),
        None => Ok(()),
    }
}

/// The observation that a recording holds.
///
/// # Errors
/// The recording is not sound.
pub fn replay(path: &Path) -> anyhow::Result<Observation> {
    let mut opened = open(&Origin::Recording(path.to_owned()), &Filter::default(), &Arc::default())?;
    Ok(observe_host(&mut *opened.host, &opened.plan)?)
}

/// Records until the duration is over or the user interrupts. What was recorded so far is kept either way.
///
/// # Errors
/// The file exists or cannot be written, or the namespace cannot be entered.
pub fn record(config: &Record, stop: &Stop) -> anyhow::Result<()> {
    // The file first: a name that cannot be written should not cost half a minute.
    let file = RecordingFile::create(&config.output)?;
    let opened = input::open(&Origin::Live(config.live.clone()), stop)?;
    let mut host = RecordingHost::new(opened.host, file, config.redact);
    let recorded = Driver::start(&mut host, &opened.plan, config.interval, Filter::default())
        .map(|mut driver| while !matches!(driver.advance(), Next::Over) {});
    host.finish().and_then(RecordingFile::persist)?;
    say_if_gone(&opened.namespace);
    Ok(recorded?)
}
