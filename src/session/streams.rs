//! The streams of single resets, of packets and of destroyed sockets: drained in every frame, parsed as they arrive, joined when
//! the window closes or much waits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ask::{Ask, Probe, What};
use crate::observation::{Endings, Resets, SocketErrors};
use crate::reset::{Drained, Ending, Joined, Joiner, Mark, Reset, Traced};
use crate::source::destroyed_sockets::Sockets;
use crate::source::reset_events::{Direction, EventAccount, Events, ResetTally, Tallies};
use crate::source::reset_packets::{PacketAccount, Packets, ResetPacket, Signature};
use crate::stream::{Content, Parser};
use crate::value::{EphemeralPorts, Failure, FailureKind, NetnsId, Observed, ParseError};

/// Single resets and packets that wait for their partners, about 20 MB; with more they are joined early.
const WAITING: usize = 20_000;
/// What happened so long before a drain has certainly been read: all sources write with clocks read on other CPUs.
pub const SETTLED: Duration = Duration::from_millis(5);
/// Single resets of a window that are kept, about 30 MB, and destroyed sockets, about 2 MB.
const MOST_RESETS: usize = 50_000;
const MOST_ENDINGS: usize = 20_000;
const MOST_ERRORS: usize = 20_000;

/// A stream that is drained in every frame.
struct Stream<C> {
    ask: Ask,
    parser: Parser<C>,
    failure: Option<Failure>,
}

impl<C: Content> Stream<C> {
    fn new(ask: Ask, left_out: Option<&Failure>) -> Self {
        Self { ask, parser: Parser::new(), failure: left_out.cloned() }
    }

    /// Takes what arrived and says how many bytes. A failure ends the collection: with a gap nothing could be counted.
    fn drain(&mut self, probe: &mut dyn Probe) -> usize {
        let mut arrived = 0;
        if self.failure.is_none() {
            let mut feed = |bytes: &[u8]| {
                arrived += bytes.len();
                self.parser.feed(bytes);
            };
            self.failure = probe.ask(&self.ask, &mut feed).result.err();
        }
        arrived
    }

    /// How the collection went: with a failure there is nothing, with an error of the parser a part.
    fn observed<T>(&self, value: T) -> Observed<T> {
        match (&self.failure, self.parser.error()) {
            (Some(failure), _) => Observed::Unavailable(failure.clone()),
            (None, Some(error)) => Observed::Partial(value, ParseError::clone(error).into()),
            (None, None) => Observed::Full(value),
        }
    }
}

/// The streams of one namespace, and what they gave in this window.
struct OfNetns {
    packets: Stream<Packets>,
    destroyed: Stream<Sockets>,
    ephemeral: EphemeralPorts,
    resets: Resets,
    grouped: BTreeMap<Mark, Tallies>,
    account: PacketAccount,
    endings: Endings,
    errors: SocketErrors,
    /// RSTs of this window that TCP sent, or may have sent; see [`Streams::reported`].
    sent: u64,
    /// Happened while the counters that began the window were read: only their number tells whether they are of it.
    at_start: Vec<Reset>,
}

/// While the counters were read, CLOCK_BOOTTIME, with which a window begins or ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub from: Duration,
    pub to: Duration,
}

/// Single resets as the kernel reports them and as they pass the wire, and the connections that end.
pub(super) struct Streams {
    events: Stream<Events>,
    /// Why no stream is read.
    left_out: Option<Failure>,
    account: EventAccount,
    netns: BTreeMap<NetnsId, OfNetns>,
    joiner: Joiner,
    reported: Reported,
}

/// Which of the RSTs that TCP sends the kernel reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    All,
    /// Answers without a full socket are not: before Linux 6.10. Their packets are.
    NotAll,
}

impl Reported {
    /// TCP sent it and counts it (`Tcp.OutRsts`), or may have.
    fn counts(self, reset: &Reset) -> bool {
        let own = |packet: &ResetPacket| packet.direction == Direction::Sent && packet.local_here;
        let of_tcp = |packet: &ResetPacket| own(packet) && packet.signature() != Signature::Foreign;
        let unreported = || reset.event.is_none() && reset.packet.as_ref().is_some_and(of_tcp);
        reset.is_counted() || self == Self::NotAll && unreported()
    }
}

/// What the streams of a namespace gave in a window.
pub(super) struct Seen {
    pub resets: Resets,
    pub reset_packets: Observed<PacketAccount>,
    pub endings: Observed<Endings>,
    pub errors: Observed<SocketErrors>,
}

impl Streams {
    /// `left_out`: why none is to be read. Opening and closing the events takes the kernel a quarter of a second.
    pub fn new(netns: impl Iterator<Item = NetnsId>, left_out: Option<Failure>) -> Self {
        Self {
            events: Stream::new(Ask::host(What::ResetEvents), left_out.as_ref()),
            account: EventAccount::default(),
            netns: netns.map(|id| (id, OfNetns::new(id, left_out.as_ref()))).collect(),
            left_out,
            joiner: Joiner::default(),
            reported: Reported::All,
        }
    }

    /// A namespace that appeared.
    pub fn add(&mut self, netns: NetnsId) {
        self.netns.entry(netns).or_insert_with(|| OfNetns::new(netns, self.left_out.as_ref()));
    }

    /// The release of the kernel, as in /proc/sys/kernel/osrelease.
    pub fn set_kernel(&mut self, kernel: &str) {
        self.reported = if Traced::new(kernel, &[], true).sent { Reported::All } else { Reported::NotAll };
    }

    /// One that is gone.
    pub fn remove(&mut self, netns: NetnsId) {
        self.netns.remove(&netns);
    }

    /// The local ports of a namespace's outgoing connections.
    pub fn set_ephemeral(&mut self, netns: NetnsId, ports: EphemeralPorts) {
        if let Some(of) = self.netns.get_mut(&netns) {
            of.ephemeral = ports;
        }
    }

    /// Takes what arrived; the largest number of bytes in one stream. The one order in which they are read: packets, then
    /// events, because a packet that came after them would look like one that TCP did not send; then destroyed sockets, because
    /// what a reset ended is destroyed after it.
    pub fn drain(&mut self, probe: &mut dyn Probe) -> usize {
        let packets = self.netns.values_mut().map(|of| of.packets.drain(probe)).max().unwrap_or(0);
        let events = self.events.drain(probe);
        let destroyed = self.netns.values_mut().map(|of| of.destroyed.drain(probe)).max().unwrap_or(0);
        packets.max(events).max(destroyed)
    }

    /// When the events were drained last, CLOCK_BOOTTIME; zero if they never were.
    pub fn drained(&self) -> Duration {
        self.events.parser.drained()
    }

    /// Takes what arrived at the end of a window, whose counters were just read; when that was at the latest, as near as the
    /// streams tell. Events before the packets, too: they tell when the counters were read.
    pub fn drain_at_end(&mut self, probe: &mut dyn Probe) -> Duration {
        self.events.drain(probe);
        let end = self.drained();
        self.drain(probe);
        if end.is_zero() { Duration::MAX } else { end }
    }

    /// Joins what waits if it is much; what was drained was drained after `now`. What is handed out then is certain to be
    /// complete.
    pub fn join_if_much(&mut self, now: Duration) {
        let waiting =
            self.events.parser.waiting() + self.netns.values().map(|of| of.packets.parser.waiting()).sum::<usize>();
        if waiting + self.joiner.waiting() >= WAITING {
            self.join(now.saturating_sub(SETTLED));
            // What is said to have happened later than that is not waited for where it is so much.
            if self.joiner.waiting() >= 2 * WAITING {
                self.join(Duration::MAX);
            }
        }
    }

    /// Joins what happened before `until` and adds it to the window.
    fn join(&mut self, until: Duration) {
        for reset in self.step(until) {
            match reset.netns() {
                Some(netns) => {
                    if let Some(of) = self.netns.get_mut(&netns) {
                        of.add(reset, self.reported);
                    }
                }
                None => self.netns.values_mut().for_each(|of| of.add(reset.clone(), self.reported)),
            }
        }
    }

    /// The namespaces that a reset may be of.
    fn concerned(&mut self, reset: &Reset) -> impl Iterator<Item = (&NetnsId, &mut OfNetns)> + use<'_> {
        let netns = reset.netns();
        self.netns.iter_mut().filter(move |(id, _)| netns.is_none_or(|netns| netns == **id))
    }

    /// Joins what happened before `until` and hands it out, with the account since the last time: no window has it.
    pub fn live(&mut self, until: Duration) -> Live {
        let joined = self.step(until);
        let events = self.events.failure.is_none().then(|| std::mem::take(&mut self.account));
        let mut live = Live { events, ..Live::default() };
        let (mut unclear, mut unclear_tallied) = (Vec::new(), 0);
        for of in self.netns.values_mut() {
            let mut resets = std::mem::take(&mut of.resets);
            // One that may be of any namespace was added to each that was there then: it is one all the same.
            let one = resets.single.extract_if(.., |reset| reset.netns().is_none()).collect::<Vec<_>>();
            if one.len() > unclear.len() {
                unclear = one;
            }
            // Those that were joined early, because many waited.
            live.resets.append(&mut resets.single);
            resets.grouped.extend(of.grouped_so_far());
            let count = |known: bool| {
                let tallies = resets.grouped.iter().map(|(_, tally)| tally);
                tallies.filter(|tally| tally.netns.is_some() == known).map(|tally| tally.count).sum::<u64>()
            };
            live.not_examined += count(true);
            unclear_tallied = unclear_tallied.max(count(false));
            live.packets_not_examined += resets.packets_dropped;
            live.has_packets |= of.packets.failure.is_none();
            live.packets.add(std::mem::take(&mut of.account));
            of.endings.endings.clear();
            of.errors = SocketErrors::default();
            live.destroyed_ended |= of.destroyed.failure.is_some() || of.endings.ended_early.is_some();
        }
        live.not_examined += unclear_tallied;
        live.resets.extend(unclear);
        live.resets.extend(joined);
        live
    }

    /// What happened before `until`, joined.
    fn step(&mut self, until: Duration) -> Vec<Reset> {
        self.joiner.packets_alone = self.events.failure.is_some();
        self.joiner.events_alone = self.netns.values().all(|of| of.packets.failure.is_some());
        let mut seen = self.events.parser.take();
        self.account.add(std::mem::take(&mut seen.account));
        let mut drained = Drained { events: seen.events, errors: seen.errors, ..Drained::default() };
        for (id, of) in &mut self.netns {
            let mut seen = of.packets.parser.take();
            of.account.add(seen.account);
            of.resets.packets_dropped += seen.dropped;
            seen.packets.iter_mut().for_each(|packet| packet.netns = *id);
            drained.packets.append(&mut seen.packets);
            let destroyed = of.destroyed.parser.take();
            of.endings.dropped += destroyed.dropped;
            of.endings.gaps += destroyed.gaps;
            of.endings.ended_early = destroyed.ended_early;
            drained.destroyed.extend(destroyed.sockets.into_iter().map(|socket| (*id, socket)));
        }
        drained.packets.sort_by_key(|packet| packet.at);
        // They are only counted: as many as that cannot be looked at one by one.
        for tally in seen.tallies {
            for (_, of) in self.netns.iter_mut().filter(|(id, _)| tally.netns.is_none_or(|netns| netns == **id)) {
                of.sent += if tally.direction == Direction::Sent { tally.count } else { 0 };
                of.resets.grouped.push((Mark::default(), tally.clone()));
            }
        }
        for of in self.netns.values_mut() {
            of.errors.dropped += seen.errors_dropped;
        }
        let Joined { resets, unclear, endings, errors } = self.joiner.step(drained, until);
        for id in unclear {
            if let Some(of) = self.netns.get_mut(&id) {
                of.resets.packets_dropped += 1;
            }
        }
        for joined in errors {
            // One of a namespace that is not known is nobody's.
            if let Some(of) = joined.error.netns.and_then(|id| self.netns.get_mut(&id)) {
                match of.errors.errors.len() < MOST_ERRORS {
                    true => of.errors.errors.push(joined),
                    false => of.errors.dropped += 1,
                }
            }
        }
        for (id, ending) in endings {
            if let Some(of) = self.netns.get_mut(&id) {
                of.end(ending);
            }
        }
        resets
    }

    /// Begins the first window. What happened before is none of it.
    pub fn begin(&mut self, start: Edge) {
        let resets = self.step(start.to);
        self.window();
        // Those that happened since then are still to be handed out.
        self.account.read = self.joiner.waiting_events() as u64;
        let reported = self.reported;
        for reset in resets.iter().filter(|reset| reset.at() >= start.from && reported.counts(reset)) {
            self.concerned(reset).for_each(|(_, of)| of.at_start.push(reset.clone()));
        }
    }

    /// Hands over the window. What happened after its end is left to the next. `counted`: the RSTs that TCP sent in it, where
    /// that is known: of those that were sent while the counters were read it tells which they have.
    pub fn take(
        &mut self,
        end: Edge,
        counted: &BTreeMap<NetnsId, u64>,
    ) -> (Observed<EventAccount>, BTreeMap<NetnsId, Seen>) {
        let resets = self.step(end.to);
        // What was lost of a busy host is missing in an unknown place.
        let exact = self.account.lost == 0;
        let reported = self.reported;
        let mut left = Vec::new();
        for reset in resets {
            let at_edge = exact && reset.at() >= end.from && reported.counts(&reset);
            for (id, of) in self.concerned(&reset) {
                match counted.get(id).filter(|_| at_edge) {
                    Some(counted) if of.sent >= *counted => left.push((*id, reset.clone())),
                    _ => of.add(reset.clone(), reported),
                }
            }
        }
        for (id, of) in &mut self.netns {
            let missing = counted.get(id).filter(|_| exact).map_or(0, |counted| counted.saturating_sub(of.sent));
            // The latest of them, which came when the counter had most likely been read.
            let latest = std::mem::take(&mut of.at_start).into_iter().rev().take(usize::try_from(missing).unwrap_or(0));
            for reset in latest {
                of.add(reset, reported);
            }
            of.resets.single.sort_by_key(Reset::at);
        }
        let window = self.window();
        for (id, reset) in left {
            if let Some(of) = self.netns.get_mut(&id) {
                of.add(reset, reported);
            }
        }
        window
    }

    /// Hands over what there is.
    fn window(&mut self) -> (Observed<EventAccount>, BTreeMap<NetnsId, Seen>) {
        let events = self.events.observed(std::mem::take(&mut self.account));
        let errors = |of: &mut OfNetns| {
            let errors = std::mem::take(&mut of.errors);
            match &events {
                Observed::Unavailable(failure) => Observed::Unavailable(failure.clone()),
                Observed::Full(account) | Observed::Partial(account, _) if !account.reports_errors => {
                    let absent = Failure::new(FailureKind::Absent, "there is no event sock:inet_sk_error_report");
                    Observed::Unavailable(absent.needs("Linux 5.14 or later"))
                }
                Observed::Partial(_, failure) => Observed::Partial(errors, failure.clone()),
                Observed::Full(_) => Observed::Full(errors),
            }
        };
        let netns = self.netns.iter_mut().map(|(id, of)| {
            let errors = errors(of);
            (*id, of.take(errors))
        });
        let netns = netns.collect();
        (events, netns)
    }

    /// Nothing more comes: what waited for more is complete.
    pub fn end(&mut self) {
        self.events.parser.end();
        for of in self.netns.values_mut() {
            of.packets.parser.end();
            of.destroyed.parser.end();
        }
    }

    /// How each stream went so far, for one who says so at once.
    pub fn failures(&self) -> StreamFailures<'_> {
        let first = self.netns.values().next();
        StreamFailures {
            events: self.events.failure.as_ref(),
            packets: first.and_then(|of| of.packets.failure.as_ref()),
            errors: self
                .events
                .parser
                .error()
                .into_iter()
                .chain(first.and_then(|of| of.packets.parser.error()))
                .collect(),
        }
    }
}

/// Resets as they come, for one who shows them at once.
#[derive(Debug, Default)]
pub struct Live {
    /// In order of time.
    pub resets: Vec<Reset>,
    /// The account of the events; `None` where there are none.
    pub events: Option<EventAccount>,
    /// The account of the packets.
    pub packets: PacketAccount,
    pub has_packets: bool,
    /// Destroyed sockets come no more.
    pub destroyed_ended: bool,
    /// More came than can be looked at one by one.
    pub not_examined: u64,
    pub packets_not_examined: u64,
}

/// What stopped a stream.
#[derive(Debug)]
pub struct StreamFailures<'a> {
    pub events: Option<&'a Failure>,
    pub packets: Option<&'a Failure>,
    pub errors: Vec<&'a ParseError>,
}

impl OfNetns {
    fn new(id: NetnsId, left_out: Option<&Failure>) -> Self {
        Self {
            packets: Stream::new(Ask::netns(id, What::ResetPackets), left_out),
            destroyed: Stream::new(Ask::netns(id, What::DestroyedSockets), left_out),
            ephemeral: EphemeralPorts::default(),
            resets: Resets::default(),
            grouped: BTreeMap::new(),
            account: PacketAccount::default(),
            endings: Endings::default(),
            errors: SocketErrors::default(),
            sent: 0,
            at_start: Vec::new(),
        }
    }

    fn add(&mut self, reset: Reset, reported: Reported) {
        self.sent += u64::from(reported.counts(&reset));
        if self.resets.single.len() < MOST_RESETS {
            self.resets.single.push(reset);
        } else if let Some(event) = reset.located_event() {
            let mark = Mark::of(&reset, &self.account.ttls);
            self.grouped.entry(mark).or_default().count(&event, self.ephemeral);
        } else {
            self.resets.packets_dropped += 1;
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.endings.endings.len() < MOST_ENDINGS {
            self.endings.endings.push(ending);
        } else {
            self.endings.dropped += 1;
        }
    }

    fn grouped_so_far(&mut self) -> Vec<(Mark, ResetTally)> {
        let grouped = std::mem::take(&mut self.grouped).into_iter();
        grouped.flat_map(|(mark, mut tallies)| tallies.take().into_iter().map(move |tally| (mark, tally))).collect()
    }

    fn take(&mut self, errors: Observed<SocketErrors>) -> Seen {
        self.sent = 0;
        let mut resets = std::mem::take(&mut self.resets);
        resets.grouped.extend(self.grouped_so_far());
        let account = PacketAccount { ttls: self.account.ttls.clone(), ..PacketAccount::default() };
        let account = std::mem::replace(&mut self.account, account);
        // That the collection ended early stays true.
        let ended_early = self.endings.ended_early.clone();
        let endings = std::mem::replace(&mut self.endings, Endings { ended_early, ..Endings::default() });
        Seen {
            resets,
            reset_packets: self.packets.observed(account),
            endings: self.destroyed.observed(endings),
            errors,
        }
    }
}
