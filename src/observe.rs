//! Drives a host through one window and turns its bytes into an [`Observation`]. Live scans and replayed recordings run
//! this same code: only the host differs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::snapshot::{ListenerTrace, Observation, Snapshot, SourceStatus, Tick};
use crate::source::census::{self, Census};
use crate::source::last_words::{LastWords, LastWordsParser};
use crate::source::listeners::{self, Listener};
use crate::source::owners::{self, Owners};
use crate::source::reset_events::{ResetEvents, ResetParser};
use crate::source::reset_packets::{PacketParser, ResetPackets};
use crate::source::{
    Ask, Failure, FailureKind, Frame, Host, Moment, Observed, ParseError, conntrack, file_nr, host_facts, netstat,
    snmp, snmp6, sockstat, sysctl, vmstat,
};

/// What to observe, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Length of the window; zero reads totals since boot once.
    pub window: Duration,
    /// Time between two looks at the listeners.
    pub poll_every: Duration,
    /// Time between two looks at the counters inside the window.
    pub tick_every: Option<Duration>,
    /// Reset tracepoints are used where allowed.
    pub events: bool,
}

impl Plan {
    /// The listeners cost 0.02 ms a look (LISTEN only), so 20 looks a second catch short queue peaks for 0.04 % of a CPU.
    pub const POLL_EVERY: Duration = Duration::from_millis(50);

    /// A scan of this length.
    pub fn scan(window: Duration) -> Self {
        Self { window, poll_every: Self::POLL_EVERY, tick_every: None, events: true }
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
    let surveyed = host.frame(Frame::Survey).ok_or(NothingObserved("no opening survey"))?;
    let mut window = Window::default();
    let mut resets = Resets::new(plan.events);
    let mut before = Snapshot::empty(surveyed);
    before.sockets(host, &mut window, &BTreeSet::new());
    before.context(host);
    let opened = host.frame(Frame::Before).ok_or(NothingObserved("no opening snapshot"))?;
    before.at = opened;
    resets.drain(host);
    before.counters(host);
    if plan.window.is_zero() {
        let after = before.clone();
        return Ok(window.close(before, after, resets.finish(host), true));
    }
    inside(host, plan, opened, &mut window, &mut resets);
    let closed = host.frame(Frame::After { end: plan.window }).ok_or(NothingObserved("no closing snapshot"))?;
    let mut after = Snapshot::empty(closed);
    after.counters(host);
    let resets = resets.finish(host);
    let known: BTreeSet<u32> =
        before.owners.value().map(|owners| owners.processes.keys().copied().collect()).unwrap_or_default();
    after.sockets(host, &mut window, &known);
    after.context(host);
    Ok(window.close(before, after, resets, false))
}

/// The looks between the two snapshots. A recording may hold other ones than the plan would take: whichever kind follows
/// is taken.
fn inside(host: &mut dyn Host, plan: &Plan, opened: Moment, window: &mut Window, resets: &mut Resets) {
    let end = plan.window;
    let (mut poll_due, mut tick_due) = (plan.poll_every, plan.tick_every.unwrap_or(end));
    loop {
        let (poll, tick) = (Frame::Poll { due: poll_due, end }, Frame::Tick { due: tick_due, end });
        let (first, second) = if tick_due <= poll_due { (tick, poll) } else { (poll, tick) };
        let (kind, at) = match host.frame(first) {
            Some(at) => (first, at),
            None => match host.frame(second) {
                Some(at) => (second, at),
                None => return,
            },
        };
        let passed = at.mono.saturating_sub(opened.mono);
        if let Frame::Tick { .. } = kind {
            window.ticks.push(Tick { at, netstat: netstat::collect(host).0, snmp: snmp::collect(host).0 });
            tick_due = next_due(tick_due, passed, plan.tick_every.unwrap_or(end));
        } else {
            poll_due = next_due(poll_due, passed, plan.poll_every);
        }
        if let Some(listeners) = listeners::collect(host).0.value() {
            window.look(listeners);
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

/// A stream that is drained in every frame and parsed as it arrives.
struct Stream<P> {
    ask: Ask,
    parser: P,
    failure: Option<Failure>,
}

trait StreamParser: Default {
    type Parsed;
    fn feed(&mut self, bytes: &[u8]);
    fn finish(self) -> (Self::Parsed, Option<ParseError>);
}

impl StreamParser for ResetParser {
    type Parsed = ResetEvents;
    fn feed(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }
    fn finish(self) -> (ResetEvents, Option<ParseError>) {
        self.finish()
    }
}

impl StreamParser for PacketParser {
    type Parsed = ResetPackets;
    fn feed(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }
    fn finish(self) -> (ResetPackets, Option<ParseError>) {
        self.finish()
    }
}

impl StreamParser for LastWordsParser {
    type Parsed = LastWords;
    fn feed(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }
    fn finish(self) -> (LastWords, Option<ParseError>) {
        self.finish()
    }
}

impl<P: StreamParser> Stream<P> {
    fn new(ask: Ask, wanted: bool) -> Self {
        let failure = Failure::new(FailureKind::NotCollected, "reset events were switched off")
            .needs("a scan without --no-events");
        Self { ask, parser: P::default(), failure: (!wanted).then_some(failure) }
    }

    /// Takes what arrived. A failure ends the collection: with a gap nothing could be counted.
    fn drain(&mut self, host: &mut dyn Host) {
        if self.failure.is_none() {
            self.failure = host.ask(&self.ask, &mut |bytes| self.parser.feed(bytes)).result.err();
        }
    }

    fn finish(mut self, host: &mut dyn Host) -> Observed<P::Parsed> {
        self.drain(host);
        let (parsed, error) = self.parser.finish();
        match (self.failure, error) {
            (Some(failure), _) => Observed::Unavailable(failure),
            (None, Some(error)) => Observed::Partial(parsed, error.into()),
            (None, None) => Observed::Full(parsed),
        }
    }
}

/// Single resets as the kernel reports them and as they pass the wire, and the connections that end.
struct Resets {
    events: Stream<ResetParser>,
    packets: Stream<PacketParser>,
    words: Stream<LastWordsParser>,
}

/// What they gave in a window.
struct Seen {
    events: Observed<ResetEvents>,
    packets: Observed<ResetPackets>,
    words: Observed<LastWords>,
}

impl Resets {
    fn new(wanted: bool) -> Self {
        Self {
            events: Stream::new(Ask::ResetEvents, wanted),
            packets: Stream::new(Ask::ResetPackets, wanted),
            words: Stream::new(Ask::LastWords, wanted),
        }
    }

    fn drain(&mut self, host: &mut dyn Host) {
        self.events.drain(host);
        self.packets.drain(host);
        self.words.drain(host);
    }

    fn finish(self, host: &mut dyn Host) -> Seen {
        // Events last: a packet that came after them would look like one that TCP did not send.
        let packets = self.packets.finish(host);
        Seen { events: self.events.finish(host), packets, words: self.words.finish(host) }
    }
}

/// What accumulates over the looks of a window.
#[derive(Default)]
struct Window {
    traces: BTreeMap<u64, ListenerTrace>,
    looks: u32,
    ticks: Vec<Tick>,
}

impl Window {
    fn look(&mut self, listeners: &[Listener]) {
        let look = self.looks;
        self.looks += 1;
        for listener in listeners {
            let full = u32::from(listener.is_full());
            self.traces
                .entry(listener.cookie)
                .and_modify(|trace| {
                    trace.samples += 1;
                    trace.full_samples += full;
                    trace.max_recv_q = trace.max_recv_q.max(listener.recv_q);
                    trace.drained += u32::from(listener.recv_q < trace.last.recv_q);
                    trace.last_sample = look;
                    trace.last = listener.clone();
                })
                .or_insert_with(|| ListenerTrace {
                    last: listener.clone(),
                    first: listener.clone(),
                    samples: 1,
                    full_samples: full,
                    max_recv_q: listener.recv_q,
                    drained: 0,
                    in_before: look == 0,
                    in_after: false,
                    first_sample: look,
                    last_sample: look,
                });
        }
    }

    fn close(mut self, before: Snapshot, after: Snapshot, seen: Seen, totals_only: bool) -> Observation {
        for trace in self.traces.values_mut() {
            trace.in_after = trace.last_sample + 1 == self.looks;
        }
        Observation {
            before,
            after,
            listener_traces: self.traces,
            polls: self.looks,
            ticks: self.ticks,
            reset_events: seen.events,
            reset_packets: seen.packets,
            last_words: seen.words,
            totals_only,
        }
    }
}

impl Snapshot {
    fn empty(at: Moment) -> Self {
        fn not_yet<T>() -> Observed<T> {
            Observed::Unavailable(Failure::new(FailureKind::NotCollected, "not asked for"))
        }
        Self {
            at,
            netstat: not_yet(),
            snmp: not_yet(),
            snmp6: not_yet(),
            sockstat: not_yet(),
            sockstat6: not_yet(),
            vmstat: not_yet(),
            file_nr: not_yet(),
            sysctls: BTreeMap::new(),
            conntrack: not_yet(),
            listeners: not_yet(),
            census: not_yet(),
            owners: not_yet(),
            host: host_facts::HostFacts::default(),
            sources: Vec::new(),
        }
    }

    /// Keeps the value and notes how the source went.
    fn keep<T>(&mut self, name: &'static str, (observed, took): (Observed<T>, Duration)) -> Observed<T> {
        self.sources.push(SourceStatus {
            name,
            failure: observed.failure().cloned(),
            partial: matches!(observed, Observed::Partial(..)),
            took,
        });
        observed
    }

    fn counters(&mut self, host: &mut dyn Host) {
        self.netstat = self.keep("netstat", netstat::collect(host));
        self.snmp = self.keep("snmp", snmp::collect(host));
        self.snmp6 = self.keep("snmp6", snmp6::collect(host));
        self.sockstat = self.keep("sockstat", sockstat::collect(host));
        self.sockstat6 = self.keep("sockstat6", sockstat::collect6(host));
        self.conntrack = self.keep("conntrack", conntrack::collect(host));
        self.vmstat = self.keep("vmstat", vmstat::collect(host));
        self.file_nr = self.keep("file_nr", file_nr::collect(host));
    }

    /// Listeners, the sweep of all sockets, and the owners of the sockets that a cause may want to name.
    fn sockets(&mut self, host: &mut dyn Host, window: &mut Window, also: &BTreeSet<u32>) {
        self.listeners = self.keep("listeners", listeners::collect(host));
        let listening = self.listeners.value().cloned().unwrap_or_default();
        if self.listeners.value().is_some() {
            window.look(&listening);
        }
        self.census = self.keep("sockets", census::collect(host, &listening));
        let inodes = inodes(&listening, window, self.census.value());
        let owners: (Observed<Owners>, Duration) = owners::collect(host, inodes, also.clone());
        self.owners = self.keep("owners", owners);
    }

    /// Settings and identity, which do not move.
    fn context(&mut self, host: &mut dyn Host) {
        let (sysctls, took) = sysctl::collect(host);
        let missing = sysctls.values().all(|value| value.value().is_none());
        let status: Observed<()> = match sysctls.values().find_map(Observed::failure) {
            Some(failure) if missing => Observed::Unavailable(failure.clone()),
            _ => Observed::Full(()),
        };
        self.keep("sysctl", (status, took));
        self.sysctls = sysctls;
        let facts = self.keep("host", host_facts::collect(host));
        self.host = facts.value().cloned().unwrap_or_default();
    }
}

/// Sockets whose owners are worth a look: every listener of the window and the samples of the sweep.
fn inodes(listening: &[Listener], window: &Window, census: Option<&Census>) -> BTreeSet<u64> {
    let listeners = listening.iter().chain(window.traces.values().map(|trace| &trace.last)).map(|l| l.inode);
    let sampled = census.into_iter().flat_map(|census| {
        let groups = census.groups.iter().flat_map(|group| group.samples.iter().map(|sample| sample.inode));
        let destinations = census.destinations.iter().flat_map(|destination| destination.inodes.iter().copied());
        groups.chain(destinations)
    });
    // Inode 0 is a socket without a process: TIME_WAIT, an orphan, a half-open request.
    listeners.chain(sampled).filter(|inode| *inode != 0).map(u64::from).collect()
}
