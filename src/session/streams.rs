//! The streams of single resets, of packets and of destroyed connections: drained in every frame, parsed as they arrive.

use std::time::Duration;

use crate::ask::{Ask, Probe, What};
use crate::observation::{Observation, Snapshot};
use crate::source::destroyed_sockets::{DestroyedSockets, Words};
use crate::source::reset_events::{Events, ResetEvent, ResetEvents};
use crate::source::reset_packets::{Packets, ResetPackets};
use crate::source::sysctl;
use crate::stream::{Content, Parser};
use crate::value::{Failure, FailureKind, NetnsId, Observed, ParseError};

/// A stream that is drained in every frame.
struct Stream<C> {
    ask: Ask,
    parser: Parser<C>,
    failure: Option<Failure>,
}

impl<C: Content> Stream<C> {
    fn new(ask: Ask, wanted: bool) -> Self {
        let failure = Failure::new(FailureKind::NotCollected, "reset events were switched off")
            .needs("a run without --no-events");
        Self { ask, parser: Parser::new(), failure: (!wanted).then_some(failure) }
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

    /// What arrived since the last time, with the stream left open.
    fn take(&mut self) -> Observed<C::Parsed> {
        let parsed = self.parser.take();
        observed(parsed, self.failure.clone(), self.parser.error().cloned())
    }

    fn finish(mut self, probe: &mut dyn Probe) -> Observed<C::Parsed> {
        self.drain(probe);
        let (parsed, error) = self.parser.finish();
        observed(parsed, self.failure, error)
    }
}

fn observed<T>(parsed: T, failure: Option<Failure>, error: Option<ParseError>) -> Observed<T> {
    match (failure, error) {
        (Some(failure), _) => Observed::Unavailable(failure),
        (None, Some(error)) => Observed::Partial(parsed, error.into()),
        (None, None) => Observed::Full(parsed),
    }
}

/// Single resets as the kernel reports them and as they pass the wire, and the connections that end.
pub(super) struct Resets {
    events: Stream<Events>,
    packets: Stream<Packets>,
    words: Stream<Words>,
}

/// What they gave in a window.
pub(super) struct Seen {
    events: Observed<ResetEvents>,
    packets: Observed<ResetPackets>,
    words: Observed<DestroyedSockets>,
}

impl Seen {
    /// Only the resets after `end`.
    pub fn later(mut self, end: Duration, settings: &Snapshot) -> Vec<ResetEvent> {
        later(&mut self.events, end, settings)
    }

    pub fn into_observation(self, observation: &mut Observation) {
        observation.reset_events = self.events;
        observation.reset_packets = self.packets;
        observation.destroyed_sockets = self.words;
    }
}

impl Resets {
    pub fn new(netns: NetnsId, wanted: bool) -> Self {
        Self {
            events: Stream::new(Ask::host(What::ResetEvents), wanted),
            packets: Stream::new(Ask::netns(netns, What::ResetPackets), wanted),
            words: Stream::new(Ask::netns(netns, What::DestroyedSockets), wanted),
        }
    }

    /// Takes what arrived; the largest number of bytes in one stream. Events after packets: a packet that came after them
    /// would look like one that TCP did not send.
    pub fn drain(&mut self, probe: &mut dyn Probe) -> usize {
        let packets = self.packets.drain(probe);
        packets.max(self.events.drain(probe)).max(self.words.drain(probe))
    }

    /// Takes what arrived at the end of a window, whose counters were just read; when that was, as near as the streams tell.
    /// Events once more at the end, for the packets that came meanwhile.
    pub fn drain_at_end(&mut self, probe: &mut dyn Probe) -> Duration {
        self.events.drain(probe);
        let end = self.events.parser.drained();
        self.drain(probe);
        end
    }

    /// What was drained since the last time.
    pub fn take(&mut self) -> Seen {
        Seen { events: self.events.take(), packets: self.packets.take(), words: self.words.take() }
    }

    pub fn finish(self, probe: &mut dyn Probe) -> Seen {
        let packets = self.packets.finish(probe);
        Seen { events: self.events.finish(probe), packets, words: self.words.finish(probe) }
    }
}

/// Takes out the resets after `end`, when the counters were read: they belong to the next window.
pub(super) fn take_later(observation: &mut Observation, end: Duration) -> Vec<ResetEvent> {
    later(&mut observation.reset_events, end, &observation.after)
}

fn later(events: &mut Observed<ResetEvents>, end: Duration, settings: &Snapshot) -> Vec<ResetEvent> {
    let range = sysctl::port_range(&settings.sysctls);
    match events {
        Observed::Full(events) | Observed::Partial(events, _) if !end.is_zero() => {
            events.take_later(end, |port| range.contains(&port))
        }
        _ => Vec::new(),
    }
}

/// Puts those of the window before in front.
pub(super) fn put_first(observation: &mut Observation, earlier: Vec<ResetEvent>) {
    let range = sysctl::port_range(&observation.after.sysctls);
    if let Observed::Full(events) | Observed::Partial(events, _) = &mut observation.reset_events {
        events.put_first(earlier, |port| range.contains(&port));
    }
}
