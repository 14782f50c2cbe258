//! Drives a host through windows and turns its bytes into [`Observation`]s: open, step, close. Scan, watch, trace, record and
//! the lab are callers of it, live or with a recording: only the host differs.
//!
//! A row of windows has no gap: each begins with the snapshot that closed the one before. A window is cheap: counters,
//! listeners, streams, and every few seconds the settings. All sockets and their owners are looked at only when the caller
//! asks for it; until then the two latest dumps stay, so that what they show neither vanishes nor seems to move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

mod collect;
mod cutout;
mod looks;
mod members;
mod streams;
#[cfg(test)]
mod testing;

pub use cutout::observe_from;
pub use members::AT_ONCE;
pub use streams::{Live, SETTLED, StreamFailures};

use crate::ask::{Frame, Host, Probe};
use crate::observation::{Covers, HostSnapshot, HostWindow, NetnsWindow, Observation, Snapshot};
use crate::source::node::Node;
use crate::source::owners::{self, Owners};
use crate::source::{snmp, sysctl};
use crate::value::{Failure, FailureKind, Moment, NetnsId, Observed};
use collect::Samples;
use looks::Looks;
use members::OfNetns;
use streams::{Edge, Seen, Streams};

/// Between two looks while queues are short and little arrives. The streams of the kernel hold more than comes in that
/// time outside a storm.
const RELAXED: Duration = Duration::from_millis(200);
/// The same while a queue fills: at the next relaxed look it may have been full and empty again.
const FILLING: Duration = Duration::from_millis(100);
/// Between two looks at the sysctls: 26 small files cost a fifth of a tick.
const SETTINGS: Duration = Duration::from_secs(5);
/// In a storm the rings of the kernel fill within 100 ms.
const STORM: Duration = Duration::from_millis(10);
/// Bytes of one stream in one look from which on the next comes sooner, and much sooner.
const MUCH: usize = 64 << 10;
const VERY_MUCH: usize = 1 << 20;

/// What to observe, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Length of all; zero reads totals since boot once, [`Duration::MAX`] never ends.
    pub length: Duration,
    /// A window ends after each such time; `None` for one window in all.
    pub interval: Option<Duration>,
    /// Time between two looks at the listeners.
    pub poll_every: Duration,
    /// Looks come more seldom while nothing happens.
    pub relaxed: bool,
    /// Sockets are looked at: all when the first window opens, the listeners in every frame. One who shows resets as they come
    /// has no window that would tell of them.
    pub sockets: bool,
    /// Reset tracepoints, RST packets and destroyed sockets are used where allowed.
    pub events: bool,
    pub covers: Covers,
}

impl Plan {
    /// The listeners cost 0.02 ms a look (LISTEN only), so 20 looks a second catch short queue peaks for 0.04 % of a CPU.
    pub const POLL_EVERY: Duration = Duration::from_millis(50);

    /// One window of this length.
    pub fn scan(length: Duration) -> Self {
        let poll_every = Self::POLL_EVERY;
        Self {
            length,
            interval: None,
            poll_every,
            relaxed: false,
            sockets: true,
            events: true,
            covers: Covers::default(),
        }
    }

    /// Why no stream of resets is read.
    fn left_out(&self) -> Option<Failure> {
        let left_out = |reason: &str, needs: &str| Failure::new(FailureKind::NotCollected, reason).needs(needs);
        if !self.events {
            Some(left_out("reset events were switched off", "a run without --no-events"))
        } else if self.length.is_zero() {
            Some(left_out("no reset happens in totals since boot", "a window (rstdoctor scan --duration 3s)"))
        } else {
            None
        }
    }
}

/// The host has no window to observe: a recording without frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing to observe: {0}")]
pub struct NothingObserved(&'static str);

/// What one frame was.
#[derive(Debug)]
pub enum Step {
    /// A look at the listeners.
    Looked,
    /// A window was closed. Hand it to [`Session::remember`] before the next step.
    Window(Box<Window>),
    /// Nothing follows but [`Session::close`].
    Over,
}

/// A window that was closed.
#[derive(Debug)]
pub struct Window {
    pub observation: Observation,
    /// All sockets were looked at for it.
    pub dumped: bool,
    /// How long after its time on the grid it came.
    pub late: Duration,
    /// The distance of the grid.
    pub interval: Duration,
}

/// What a look showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Low,
    /// A queue is a quarter full.
    Filling,
    /// Much came by the streams.
    Some,
    Storm,
}

/// Drives a host through windows.
pub struct Session {
    plan: Plan,
    opened: Moment,
    now: Moment,
    poll_due: Duration,
    tick_due: Duration,
    /// When the settings were looked at last.
    settings: Moment,
    host: HostSnapshot,
    host_earlier: HostSnapshot,
    netns: BTreeMap<NetnsId, OfNetns>,
    /// Who held sockets at looks within the window.
    between: Option<Owners>,
    node: Observed<Arc<Node>>,
    /// When the node was looked at last.
    node_at: Moment,
    /// Looks so far: whose turn it is of many namespaces.
    turn: usize,
    /// Windows that were closed.
    windows: usize,
    /// The owners of the sockets that were seen when the session opened are still to be looked up.
    owners_due: bool,
    streams: Streams,
}

/// Observes one window.
///
/// # Errors
/// When the host opens no window, or does not close it.
pub fn observe(host: &mut dyn Host, plan: &Plan) -> Result<Observation, NothingObserved> {
    let mut session = Session::open(host, plan)?;
    loop {
        match session.step(host) {
            Step::Over => break,
            Step::Window(window) => session.remember(window.observation),
            Step::Looked => {}
        }
    }
    session.close(host).map(|window| window.observation).ok_or(NothingObserved("no closing snapshot"))
}

impl Session {
    /// The slow look at everything, then the counters that begin the first window.
    ///
    /// # Errors
    /// When the host opens no window.
    pub fn open(host: &mut dyn Host, plan: &Plan) -> Result<Self, NothingObserved> {
        let dumped = host.frame(Frame::Dump).ok_or(NothingObserved("no opening snapshot of the sockets"))?;
        let all = members::all(host);
        let node = members::node(host);
        let mut whole = HostSnapshot::empty(dumped);
        let mut netns = members::open_all(host, all, node.value().and_then(|node| node.own), dumped, plan);
        // Without a window no reset follows that would want to name who held its connection.
        let samples = if plan.length.is_zero() { Samples::Notable } else { Samples::All };
        // The walk of a big node takes long: there it waits until the window has begun.
        let owners_due = members::are_many(&netns) && !plan.length.is_zero();
        if !owners_due {
            whole.owners(host, members::wanted(&netns, samples), BTreeSet::new());
        }
        if samples == Samples::Notable && whole.others_at_limit() {
            // Whether it has to do with TCP, all samples tell.
            whole.owners(host, members::wanted(&netns, Samples::All), BTreeSet::new());
        }
        whole.context(host);
        let opened = host.frame(Frame::Before).ok_or(NothingObserved("no opening snapshot"))?;
        let mut streams = Streams::new(netns.keys().copied(), plan.left_out());
        streams.set_kernel(whole.facts.kernel.as_deref().unwrap_or_default());
        for (id, of) in &netns {
            streams.set_ephemeral(*id, sysctl::ephemeral_ports(&of.previous.sysctls));
        }
        // The first answer opens the streams, which takes a while; what came before the counters were read is none of the
        // window's.
        streams.drain(host);
        let from = streams.drained();
        whole.counters(host);
        for of in netns.values_mut() {
            of.previous.counters(host);
            of.previous.at = opened;
            of.earlier = of.previous.clone();
        }
        whole.at = opened;
        let to = streams.drain_at_end(host);
        let counted = if to == Duration::MAX { opened.mono } else { to };
        streams.begin(Edge { from, to: counted });
        // On a busy host that takes longer than a tick, and the first one would show nothing of what it says to cover. Where a
        // length was asked for, it has as many ticks as fit.
        let opening = if plan.length == Duration::MAX { counted.saturating_sub(opened.mono) } else { Duration::ZERO };
        Ok(Self {
            plan: plan.clone(),
            opened,
            now: opened,
            poll_due: plan.poll_every,
            tick_due: plan.interval.map_or(Duration::MAX, |interval| interval.saturating_add(opening)),
            settings: dumped,
            host_earlier: whole.clone(),
            host: whole,
            between: None,
            netns,
            node,
            node_at: dumped,
            turn: 0,
            windows: 0,
            owners_due,
            streams,
        })
    }

    /// When the first window began.
    pub fn opened(&self) -> Moment {
        self.opened
    }

    /// The namespaces under observation, with what was seen of each when the latest window closed.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.netns.values().map(|of| &of.previous)
    }

    /// What was seen of the host when the latest window closed.
    pub fn host_snapshot(&self) -> &HostSnapshot {
        &self.host
    }

    /// What stopped a stream.
    pub fn failures(&self) -> StreamFailures<'_> {
        self.streams.failures()
    }

    /// When the latest frame was.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The resets that happened before `until` (CLOCK_BOOTTIME), for one who shows them as they come: no window has them.
    pub fn live(&mut self, until: Duration) -> Live {
        self.streams.live(until)
    }

    /// The end for one who shows resets as they come: everything that is left. `None` when the host has no closing frame.
    /// `early`: before the plan ends.
    pub fn close_live(&mut self, host: &mut dyn Host, early: bool) -> Option<Live> {
        let end = if early { Duration::ZERO } else { self.plan.length };
        self.now = host.frame(Frame::After { end })?;
        let end = self.streams.drain_at_end(host);
        self.streams.end();
        let mut live = self.streams.live(Duration::MAX);
        // The events ended before the packets did: a packet without one is no news then.
        live.resets.retain(|reset| reset.event.is_some() || reset.at() < end);
        Some(live)
    }

    /// The windows from now on are this long; the next ends that long after `now`.
    pub fn set_interval(&mut self, interval: Duration, now: Moment) {
        self.plan.interval = Some(interval);
        self.tick_due = self.passed(now) + interval;
    }

    /// The next window looks at the settings, too.
    pub fn settings_next(&mut self) {
        self.settings = Moment::default();
    }

    /// Waits for the next frame and looks. A recording may hold other frames than are due: whichever follows is taken. A tick
    /// means nothing to one who wants a single window but a look more.
    pub fn step(&mut self, host: &mut dyn Host) -> Step {
        let end = self.plan.length;
        if end.is_zero() {
            return Step::Over;
        }
        let poll = Frame::Poll { due: self.poll_due, end };
        let tick = Frame::Tick { due: self.tick_due.min(end), end };
        let (first, second) = if self.tick_due <= self.poll_due { (tick, poll) } else { (poll, tick) };
        let opened = |frame, host: &mut dyn Host| host.frame(frame).map(|at| (frame, at));
        let Some((frame, at)) = opened(first, host).or_else(|| opened(second, host)) else { return Step::Over };
        self.now = at;
        match (frame, self.plan.interval) {
            (Frame::Tick { .. }, Some(interval)) => {
                let late = self.passed(at).saturating_sub(host.due(self.tick_due));
                self.tick_due = next_due(self.tick_due, self.passed(at), interval);
                let observation = self.end_window(host, at, false);
                Step::Window(Box::new(Window { observation, dumped: false, late, interval }))
            }
            _ => {
                if matches!(frame, Frame::Tick { .. }) {
                    self.look_between(host);
                }
                let every = match self.look(host, at) {
                    Load::Storm => STORM.min(self.plan.poll_every),
                    Load::Low if self.plan.relaxed => RELAXED.max(self.plan.poll_every),
                    Load::Filling if self.plan.relaxed => FILLING.max(self.plan.poll_every),
                    Load::Low | Load::Filling | Load::Some => self.plan.poll_every,
                };
                self.poll_due = next_due(self.poll_due, self.passed(at), every);
                Step::Looked
            }
        }
    }

    /// A recording that is judged as one window may have looked at owners within it.
    fn look_between(&mut self, host: &mut dyn Host) {
        let (owners, _) = owners::collect(host, BTreeSet::new(), BTreeSet::new());
        if let Observed::Full(owners) | Observed::Partial(owners, _) = owners {
            self.between.get_or_insert_default().add_all(owners);
        }
    }

    /// Closes the last window, with a look at all sockets. `None` when the host has no closing frame.
    pub fn close(&mut self, host: &mut dyn Host) -> Option<Window> {
        let interval = self.plan.interval.unwrap_or(self.plan.length);
        if self.plan.length.is_zero() {
            let observation = self.totals();
            return Some(Window { observation, dumped: true, late: Duration::ZERO, interval });
        }
        let at = host.frame(Frame::After { end: self.plan.length })?;
        self.settings_next();
        let mut observation = self.end_window(host, at, true);
        let dumped = self.dump(host, &mut observation, &|_| true);
        Some(Window { observation, dumped, late: Duration::ZERO, interval })
    }

    /// The next window begins where this one ended. Call it with each window that was closed.
    pub fn remember(&mut self, observation: Observation) {
        for (id, seen) in observation.netns {
            let Some(of) = self.netns.get_mut(&id) else { continue };
            // What a list that was read in part lacks is not new in the next window.
            of.looks = Looks::from(match &seen.after.listeners {
                Observed::Full(listeners) => Some(listeners),
                _ => None,
            });
            (of.earlier, of.previous) = (seen.before, seen.after);
        }
        (self.host_earlier, self.host) = (observation.host.before, observation.host.after);
    }

    fn passed(&self, at: Moment) -> Duration {
        at.mono.saturating_sub(self.opened.mono)
    }

    /// The counters, then the streams, which end where the counters were read; then what is slower.
    fn end_window(&mut self, probe: &mut dyn Probe, at: Moment, last: bool) -> Observation {
        let mut whole = HostSnapshot::empty(at);
        whole.counters(probe);
        let (after, idle) = self.counters_of_all(probe, at, last);
        let end = Edge { from: at.mono, to: self.streams.drain_at_end(probe) };
        if last {
            self.streams.end();
        }
        let (reset_events, mut seen) = self.streams.take(end, &self.sent_since(&after));
        let settings = at.mono.saturating_sub(self.settings.mono) >= SETTINGS;
        let in_turn = members::are_many(&self.netns);
        let mut fresh = false;
        let mut windows = BTreeMap::new();
        for (id, mut after) in after {
            let (Some(of), Some(mut seen)) = (self.netns.get_mut(&id), seen.remove(&id)) else { continue };
            if idle.contains(&id) {
                seen.resets.without_strangers(at.mono);
            }
            let mut looks = std::mem::take(&mut of.looks);
            // `remember` gives it its successor.
            let mut before = std::mem::replace(&mut of.previous, Snapshot::empty(id, at));
            match !last && idle.contains(&id) && looks.is_still() {
                true => after.carry_listeners(&before, &mut looks),
                false => after.listeners(probe, &mut looks),
            }
            after.carry_dump(&before);
            after.carry_settings(&before);
            let seen_since = of.settings.take();
            // Of many, those of an idle one have time until its turn comes.
            let due = match in_turn {
                true => (last || !idle.contains(&id)) && seen_since.is_none() && !before.has_settings(),
                false => settings,
            };
            let now = if due { Some(Snapshot::of_settings(probe, id, at)) } else { seen_since };
            if let Some(now) = now.filter(Snapshot::holds_settings) {
                after.carry_settings(&now);
                self.streams.set_ephemeral(id, sysctl::ephemeral_ports(&after.sysctls));
                fresh |= settings;
            }
            before.carry_dump(&of.earlier);
            let listener_traces = looks.close();
            let (Seen { resets, reset_packets, endings, errors }, name) = (seen, of.name.clone());
            let window = NetnsWindow {
                name,
                gone: false,
                came: std::mem::take(&mut of.came),
                before,
                after,
                listener_traces,
                resets,
                reset_packets,
                endings,
                errors,
            };
            windows.insert(id, window);
        }
        let mut before = std::mem::replace(&mut self.host, HostSnapshot::empty(at));
        whole.carry_owners(&before);
        whole.carry_context(&before);
        if settings {
            let mut now = HostSnapshot::empty(at);
            now.context(probe);
            if now.has_context() {
                whole.carry_context(&now);
                fresh = true;
            }
        }
        if fresh {
            self.settings = at;
        }
        before.carry_owners(&self.host_earlier);
        let (node, between) = (self.node.clone(), self.between.take().map(Arc::new));
        let host = HostWindow { before, after: whole, between, reset_events, node, totals_only: false };
        let mut observation = Observation { host, netns: windows, covers: self.plan.covers.clone() };
        self.renew(probe, &mut observation, at, last);
        observation
    }

    /// The RSTs that TCP sent in each namespace since the latest window closed, where it counted them.
    fn sent_since(&self, after: &BTreeMap<NetnsId, Snapshot>) -> BTreeMap<NetnsId, u64> {
        let sent = |snapshot: &Snapshot| snapshot.counters.value(&snmp::FILE)?.get("Tcp.OutRsts");
        let of = |(id, after): (&NetnsId, &Snapshot)| {
            Some((*id, sent(after)?.checked_sub(sent(&self.netns.get(id)?.previous)?)?))
        };
        after.iter().filter_map(of).collect()
    }

    /// What stood there when the session was opened: totals since boot.
    fn totals(&mut self) -> Observation {
        let never = Edge { from: Duration::ZERO, to: Duration::ZERO };
        let (reset_events, mut seen) = self.streams.take(never, &BTreeMap::new());
        let of = |(id, of): (&NetnsId, &mut OfNetns)| {
            let seen = seen.remove(id)?;
            let listener_traces = std::mem::take(&mut of.looks).close();
            let window = NetnsWindow {
                name: of.name.clone(),
                gone: false,
                came: false,
                before: of.previous.clone(),
                after: of.previous.clone(),
                listener_traces,
                resets: seen.resets,
                reset_packets: seen.reset_packets,
                endings: seen.endings,
                errors: seen.errors,
            };
            Some((*id, window))
        };
        let netns = self.netns.iter_mut().filter_map(of).collect();
        let (before, after, node) = (self.host.clone(), self.host.clone(), self.node.clone());
        let host = HostWindow { before, after, between: None, reset_events, node, totals_only: true };
        Observation { host, netns, covers: self.plan.covers.clone() }
    }
}

/// The next time on the grid that has not passed: a late look does not shift those that follow.
fn next_due(due: Duration, passed: Duration, every: Duration) -> Duration {
    let every = every.max(Duration::from_millis(1));
    let behind = passed.saturating_sub(due).as_nanos() / every.as_nanos();
    due + every * (u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(1))
}
