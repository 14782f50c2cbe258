//! One trace: bytes of both sources in, resets out.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::join::{Joined, Joiner, Read, Traced};
use super::{Filter, Holders, Reset, Summary};
use crate::source::destroyed_sockets::DestroyedParser;
use crate::source::reset_events::{Missing, Place, ResetEvents, ResetParser};
use crate::source::reset_packets::{PacketParser, ResetPackets};
use crate::value::{Moment, ParseError};

/// Both sources write with clocks read on other CPUs: what happened this shortly before a drain may come with the next.
const SLACK: Duration = Duration::from_millis(5);
/// A connection speaks its last words once its process closed it. So long a reset is held back for them.
const PATIENCE: Duration = Duration::from_millis(100);

/// Events of one reading that are looked at one by one, some 20 MB until they are written; what is over is only counted. Then
/// it cannot keep up, and for a while packets are left alone in favour of events.
const MOST: usize = 10_000;
const STORM_LASTS: Duration = Duration::from_secs(1);

/// Resets that matched, in order of time, and what is missing between them.
#[derive(Debug, Default)]
pub struct Batch {
    pub resets: Vec<Reset>,
    /// See [`Summary::lost`], [`Summary::not_examined`].
    pub lost: u64,
    pub not_examined: u64,
}

pub struct Session {
    filter: Filter,
    holders: Holders,
    events: ResetParser,
    packets: PacketParser,
    words: DestroyedParser,
    /// They still come.
    has_words: bool,
    /// Bytes of that source arrived.
    has_events: bool,
    has_packets: bool,
    /// Release.
    kernel: String,
    missing: Vec<Missing>,
    joiner: Joiner,
    /// CLOCK_BOOTTIME when the previous drain began.
    previous: Duration,
    /// Events, or packets, were lost not long ago: the one without the other proves nothing.
    lost_until: Duration,
    /// Packets are left alone.
    storm_until: Duration,
    packets_lost_until: Duration,
    ephemeral: RangeInclusive<u16>,
    summary: Summary,
}

impl Session {
    /// `kernel` is the release, as in /proc/sys/kernel/osrelease.
    pub fn new(filter: Filter, kernel: &str, ephemeral: RangeInclusive<u16>, start: Moment) -> Self {
        Self {
            filter,
            holders: Holders::default(),
            events: ResetParser::keeping(MOST),
            packets: PacketParser::new(),
            words: DestroyedParser::default(),
            has_words: false,
            has_events: false,
            has_packets: false,
            kernel: kernel.to_owned(),
            missing: Vec::new(),
            joiner: Joiner::default(),
            previous: start.mono,
            lost_until: Duration::ZERO,
            storm_until: Duration::ZERO,
            packets_lost_until: Duration::ZERO,
            ephemeral,
            summary: Summary { started: start.wall, ..Summary::default() },
        }
    }

    /// Who listens and holds connections now.
    pub fn look(&mut self, holders: Holders) {
        self.holders = holders.after(std::mem::take(&mut self.holders));
    }

    /// More of the answer to `Ask::ResetEvents`.
    pub fn feed_events(&mut self, bytes: &[u8]) {
        self.has_events = true;
        self.events.feed(bytes);
    }

    /// More of the answer to `Ask::ResetPackets`.
    pub fn feed_packets(&mut self, bytes: &[u8]) {
        self.has_packets = true;
        self.packets.feed(bytes);
    }

    /// More of the answer to `Ask::DestroyedSockets`.
    pub fn feed_words(&mut self, bytes: &[u8]) {
        self.has_words = true;
        self.words.feed(bytes);
    }

    /// What stopped a parser.
    pub fn errors(&self) -> impl Iterator<Item = &ParseError> {
        self.events.error().into_iter().chain(self.packets.error())
    }

    /// What the events lack, by name.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Both sources have been read; `began` is the moment before that reading. Hands out the resets before the moment of the
    /// previous reading.
    pub fn step(&mut self, began: Moment) -> Batch {
        let wait = SLACK + if self.has_words { PATIENCE } else { Duration::ZERO };
        let until = std::mem::replace(&mut self.previous, began.mono).saturating_sub(wait);
        let (events, packets) = (self.events.take(), self.packets.take());
        self.settle(events, packets, until, began)
    }

    /// The last reading: hands out everything.
    pub fn finish(&mut self, began: Moment) -> Batch {
        let (events, _) = std::mem::take(&mut self.events).finish();
        let packets = self.packets.take();
        self.settle(events, packets, Duration::MAX, began)
    }

    /// Adds a reset that was handed out to the summary.
    pub fn count(&mut self, reset: &Reset) {
        self.summary.add(reset, |port| self.ephemeral.contains(&port));
    }

    /// `not_shown` of all resets handed out found no room in the output.
    pub fn summary(&self, now: Moment, not_shown: u64) -> Summary {
        let duration = now.wall.saturating_sub(self.summary.started);
        Summary { duration, not_shown, ..self.summary.clone() }
    }

    fn settle(&mut self, events: ResetEvents, packets: ResetPackets, until: Duration, began: Moment) -> Batch {
        const SUSPECT: Duration = Duration::from_secs(1);
        self.missing = events.missing;
        if events.lost + events.dropped > 0 {
            self.lost_until = began.mono + SUSPECT;
        }
        if packets.lost + packets.dropped > 0 {
            self.packets_lost_until = began.mono + SUSPECT;
        }
        let mut batch = Batch { lost: events.lost, not_examined: events.dropped, ..Batch::default() };
        if !self.has_events {
            (batch.lost, batch.not_examined) = (packets.lost, packets.dropped);
        } else {
            *self.summary.counted.get_or_insert(0) += events.read + events.lost;
        }
        let elsewhere = events.tallies.iter().filter(|tally| tally.place == Place::Elsewhere).map(|tally| tally.count);
        self.summary.passed_over += elsewhere.sum::<u64>() + events.bogus_received;
        self.summary.lost += batch.lost;
        self.summary.not_examined += batch.not_examined;
        self.summary.packets_lost += packets.lost;
        self.summary.forwarded += packets.forwarded;
        let mut own = packets.packets;
        own.retain(|packet| self.packets.is_local(packet.local.ip()));
        let heard = self.words.take();
        self.has_words &= heard.ended_early.is_none();
        if events.dropped > 0 {
            self.storm_until = began.mono + STORM_LASTS;
        }
        let storm = began.mono < self.storm_until;
        if storm {
            self.summary.packets_left += own.len() as u64;
            own.clear();
        }
        let read = Read { events: events.events, packets: own, words: heard.words };
        for joined in self.joiner.step(read, until) {
            // Its event is among those that are only counted.
            if storm && joined.event.is_none() {
                self.summary.packets_left += 1;
                continue;
            }
            if self.is_of_another_namespace(&joined) {
                self.summary.passed_over += u64::from(joined.event.is_some());
                continue;
            }
            let traced = self.traced(joined.at());
            let reset = Reset::new(joined, traced, &self.holders, began);
            if self.filter.keeps(&reset) {
                batch.resets.push(reset);
            } else if reset.event.is_some() {
                self.summary.passed_over += 1;
            }
        }
        batch
    }

    /// Its namespace is not clear, and its packet did not pass here, where all are seen.
    fn is_of_another_namespace(&self, joined: &Joined) -> bool {
        let unclear = joined.event.as_ref().is_some_and(|event| event.place == Place::Unclear);
        unclear && joined.packet.is_none() && self.has_packets && joined.at() >= self.packets_lost_until
    }

    fn traced(&self, at: Duration) -> Traced {
        let certain = self.events.error().is_none() && at >= self.lost_until;
        match self.has_events {
            true => Traced::new(&self.kernel, &self.missing, certain),
            false => Traced::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::event;
    use super::*;
    use crate::source::reset_events::{Direction, ResetEvent};
    use crate::source::sysctl::DEFAULT_PORT_RANGE;

    #[test]
    fn what_is_unclear_belongs_elsewhere_where_packets_are_seen_and_its_packet_was_not() {
        let start = Moment { mono: Duration::from_secs(90), wall: Duration::from_secs(1_090), ..Moment::default() };
        let mut session = Session::new(Filter::default(), "6.18", DEFAULT_PORT_RANGE, start);
        let unclear = ResetEvent { place: Place::Unclear, ..event(Direction::Sent, "127.0.0.1:9", "127.0.0.1:10") };
        let of = |event: &ResetEvent| Joined { event: Some(event.clone()), ..Joined::default() };
        assert!(!session.is_of_another_namespace(&of(&unclear)), "no packets at all");
        session.feed_packets(&[]);
        assert!(session.is_of_another_namespace(&of(&unclear)));
        let here = ResetEvent { place: Place::Here, ..unclear.clone() };
        assert!(!session.is_of_another_namespace(&of(&here)), "a rule may have dropped its packet");
        session.packets_lost_until = Duration::from_secs(101);
        assert!(!session.is_of_another_namespace(&of(&unclear)), "its packet may be the one that was lost");
    }

    #[test]
    fn an_empty_trace_has_an_empty_summary() {
        let at = |s| Moment { mono: Duration::from_secs(s), wall: Duration::from_secs(1_000 + s), ..Moment::default() };
        let mut session = Session::new(Filter::default(), "6.18", DEFAULT_PORT_RANGE, at(5));
        assert!(session.step(at(6)).resets.is_empty());
        assert!(session.finish(at(7)).resets.is_empty());
        let summary = session.summary(at(8), 0);
        assert_eq!((summary.total(), summary.lost, summary.duration), (0, 0, Duration::from_secs(3)));
    }
}
