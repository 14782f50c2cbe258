//! From an origin to an observation: a live host, or a recording that stands in for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;

use crate::ask::Host;
use crate::command::config::{Live, Origin, Record};
use crate::diagnosis::filter::Filter;
use crate::kernel::LiveHost;
use crate::kernel::namespace::{self, Entered};
use crate::observation::Observation;
use crate::output::say;
use crate::recording::{RecordingFile, RecordingHost, ReplayHost};
use crate::session::{Plan, observe as observe_host};
use crate::source::process;
use crate::timeline::{Driver, Next};
use crate::value::Stop;

/// An observation and the name under which its network namespace was asked for.
pub struct Collected {
    pub observation: Observation,
    pub netns_name: Option<String>,
}

/// Observes this host, or replays a recording. `None` if it was interrupted before there was a whole window.
///
/// # Errors
/// The namespace cannot be entered, the process that was asked for does not exist, or the recording is not sound.
pub fn observe(origin: &Origin, filter: &Filter, stop: &Stop) -> anyhow::Result<Option<Collected>> {
    match origin {
        Origin::Live(live) => {
            let netns_name = enter(live)?.and_then(|entered| entered.name);
            let mut host = LiveHost::new(Arc::clone(stop));
            must_exist(&mut host, filter)?;
            let observation = observe_host(&mut host, &plan(live))?;
            Ok((!stop.load(Ordering::Relaxed)).then_some(Collected { observation, netns_name }))
        }
        Origin::Recording(path) => Ok(Some(Collected { observation: replay(path)?, netns_name: None })),
    }
}

/// Before any wait: of a process that is not there nothing can be learnt.
///
/// # Errors
/// The process that was asked for does not exist.
pub fn must_exist(host: &mut dyn Host, filter: &Filter) -> anyhow::Result<()> {
    match filter.pid.filter(|pid| !process::exists(host, *pid)) {
        Some(pid) => anyhow::bail!("--pid: no process {pid} on this host"),
        None => Ok(()),
    }
}

/// Opens a recording, and says if it was cut off.
///
/// # Errors
/// The recording is not sound.
pub fn open(path: &Path) -> anyhow::Result<ReplayHost> {
    let recording = ReplayHost::open(path)?;
    if let Some(failure) = recording.status().and_then(|status| status.failure) {
        say(format_args!("rstdoctor: {}: {}", path.display(), failure.reason));
    }
    Ok(recording)
}

/// The observation that a recording holds.
///
/// # Errors
/// The recording is not sound.
pub fn replay(path: &Path) -> anyhow::Result<Observation> {
    let mut recording = open(path)?;
    let window = recording.windows().first().with_context(|| format!("{}: no window was recorded", path.display()))?;
    let plan = Plan::scan(window.planned);
    let status = recording.status();
    let mut observation = observe_host(&mut recording, &plan)?;
    observation.after.sources.extend(status);
    Ok(observation)
}

/// Records until the duration is over or the user interrupts. What was recorded so far is kept either way.
///
/// # Errors
/// The file exists or cannot be written, or the namespace cannot be entered.
pub fn record(config: &Record, stop: &Stop) -> anyhow::Result<()> {
    // The file first: a name that cannot be written should not cost half a minute.
    let file = RecordingFile::create(&config.output)?;
    enter(&config.live)?;
    let mut host = RecordingHost::new(LiveHost::new(Arc::clone(stop)), file, config.redact);
    let recorded = Driver::start(&mut host, &plan(&config.live), config.interval, Filter::default())
        .map(|mut driver| while !matches!(driver.advance(), Next::Over) {});
    host.finish().and_then(RecordingFile::persist)?;
    Ok(recorded?)
}

pub fn plan(live: &Live) -> Plan {
    Plan { events: live.events, ..Plan::scan(live.duration) }
}

/// Moves this thread into the namespace that was asked for.
///
/// # Errors
/// It cannot be entered.
pub fn enter(live: &Live) -> anyhow::Result<Option<Entered>> {
    Ok(live.netns.as_deref().map(namespace::enter).transpose()?)
}
