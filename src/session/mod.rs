//! Drives a host through one window and turns its bytes into an [`Observation`]. Live scans and replayed recordings run
//! this same code: only the host differs. [`Watching`] drives it through a row of windows.

use std::collections::BTreeSet;
use std::time::Duration;

mod collect;
mod looks;
mod streams;
mod watching;

pub use watching::{Step, Ticked, Watching};

use crate::ask::{Frame, Host, Probe};
use crate::observation::{Observation, Snapshot};
use crate::source::reset_events::ResetEvent;
use crate::source::{listeners, namespaces};
use crate::value::{Moment, NetnsId, Observed};
use looks::Looks;
use streams::Resets;

/// What to observe, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Length of the window; zero reads totals since boot once.
    pub window: Duration,
    /// Time between two looks at the listeners.
    pub poll_every: Duration,
    /// Reset tracepoints are used where allowed.
    pub events: bool,
}

impl Plan {
    /// The listeners cost 0.02 ms a look (LISTEN only), so 20 looks a second catch short queue peaks for 0.04 % of a CPU.
    pub const POLL_EVERY: Duration = Duration::from_millis(50);

    /// A scan of this length.
    pub fn scan(window: Duration) -> Self {
        Self { window, poll_every: Self::POLL_EVERY, events: true }
    }
}

/// The host has no window to observe: a recording without frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing to observe: {0}")]
pub struct NothingObserved(&'static str);

/// Observes one window.
///
/// # Errors
/// When the host opens no window, or does not close it.
pub fn observe(host: &mut dyn Host, plan: &Plan) -> Result<Observation, NothingObserved> {
    let mut looks = Looks::default();
    let netns = namespace(host);
    let mut resets = Resets::new(netns, plan.events);
    let (before, first) = open(host, netns, &mut looks, &mut resets)?;
    if plan.window.is_zero() {
        let after = before.clone();
        let mut observation = observation(before, after, looks);
        observation.totals_only = true;
        resets.finish(host).into_observation(&mut observation);
        return Ok(observation);
    }
    inside(host, netns, plan, before.at, &mut looks, &mut resets);
    let closed = host.frame(Frame::After { end: plan.window }).ok_or(NothingObserved("no closing snapshot"))?;
    let mut after = Snapshot::empty(netns, closed);
    after.counters(host);
    let end = resets.drain_at_end(host);
    let seen = resets.finish(host);
    after.listeners(host, &mut looks);
    after.sockets(host, looks.seen(), &before.known_processes());
    after.context(host);
    let mut observation = observation(before, after, looks);
    seen.into_observation(&mut observation);
    streams::take_later(&mut observation, end);
    streams::put_first(&mut observation, first);
    Ok(observation)
}

/// The namespace under observation.
fn namespace(probe: &mut dyn Probe) -> NetnsId {
    let namespaces = namespaces::collect(probe).0;
    namespaces.value().and_then(|namespaces| namespaces.first()).map(|namespace| namespace.id).unwrap_or_default()
}

/// The slow look at everything, then the counters that begin the window.
///
/// With the resets that came after those counters were read.
fn open(
    host: &mut dyn Host,
    netns: NetnsId,
    looks: &mut Looks,
    resets: &mut Resets,
) -> Result<(Snapshot, Vec<ResetEvent>), NothingObserved> {
    let dumped = host.frame(Frame::Dump).ok_or(NothingObserved("no opening survey"))?;
    let mut before = Snapshot::empty(netns, dumped);
    before.listeners(host, looks);
    before.sockets(host, looks.seen(), &BTreeSet::new());
    before.context(host);
    before.at = host.frame(Frame::Before).ok_or(NothingObserved("no opening snapshot"))?;
    // The first answer opens the streams, which takes a while; what came before the counters were read is none of the window's.
    resets.drain(host);
    before.counters(host);
    let end = resets.drain_at_end(host);
    let later = resets.take().later(end, &before);
    Ok((before, later))
}

/// The looks between the two snapshots. A recording may hold ticks, which mean nothing to a single window but a look more.
fn inside(host: &mut dyn Host, netns: NetnsId, plan: &Plan, opened: Moment, looks: &mut Looks, resets: &mut Resets) {
    let end = plan.window;
    let mut due = plan.poll_every;
    loop {
        let Some(at) = host.frame(Frame::Poll { due, end }).or_else(|| host.frame(Frame::Tick { due: end, end }))
        else {
            return;
        };
        due = next_due(due, at.mono.saturating_sub(opened.mono), plan.poll_every);
        if let Some(listeners) = listeners::collect(host, netns).0.value() {
            looks.look(listeners);
        }
        resets.drain(host);
    }
}

/// The next time on the grid that has not passed: a late look does not shift those that follow.
fn next_due(due: Duration, passed: Duration, every: Duration) -> Duration {
    let every = every.max(Duration::from_millis(1));
    let behind = passed.saturating_sub(due).as_nanos() / every.as_nanos();
    due + every * (u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(1))
}

/// A window without its streams yet.
fn observation(before: Snapshot, after: Snapshot, looks: Looks) -> Observation {
    let (listener_traces, polls) = looks.close();
    Observation {
        before,
        after,
        listener_traces,
        polls,
        reset_events: Observed::not_asked(),
        earlier_resets: Vec::new(),
        reset_packets: Observed::not_asked(),
        destroyed_sockets: Observed::not_asked(),
        totals_only: false,
    }
}
