//! One trace: joined resets in, what is shown of them out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Filter, Holders, Reset, Summary};
use crate::reset::{self, Surroundings, Traced};
use crate::session::Live;
use crate::source::node::Location;
use crate::source::reset_events::Missing;
use crate::source::reset_packets::PeerTtls;
use crate::value::{Moment, NetnsId};

/// For so long after something was lost an event without a packet proves nothing, nor a packet without an event.
const SUSPECT: Duration = Duration::from_secs(1);

/// A packet without an event waits so long for the counts of events, which are read each second and believed the second time: its
/// record may be lost.
const COUNTED: Duration = Duration::from_millis(2_100);
/// At most so many resets wait.
const MOST_HELD: usize = 10_000;

/// What decides who is behind the resets of one network namespace.
#[derive(Debug, Default)]
struct OfNetns {
    holders: Holders,
    around: Surroundings,
    /// Where it is, if not with the one who looks.
    location: Option<Arc<Location>>,
}

/// Resets that matched, in order of time, and what is missing between them.
#[derive(Debug, Default)]
pub struct Batch {
    pub resets: Vec<Reset>,
    /// See [`Summary::lost`], [`Summary::not_examined`].
    pub lost: u64,
    pub not_examined: u64,
}

pub struct Tracer {
    filter: Filter,
    netns: BTreeMap<NetnsId, OfNetns>,
    /// That of the one who looks, where it is observed.
    own: Option<NetnsId>,
    /// Release.
    kernel: String,
    missing: Vec<Missing>,
    /// Events, or packets, were lost not long ago.
    lost_until: Duration,
    packets_lost_until: Duration,
    /// More events came than were looked at: their packets are alone.
    storm_until: Duration,
    /// In order of time, the first of which [waits](COUNTED).
    held: VecDeque<reset::Reset>,
    summary: Summary,
}

impl Tracer {
    /// `kernel` is the release, as in /proc/sys/kernel/osrelease. Nothing is shown before [`observe`](Self::observe).
    pub fn new(filter: Filter, kernel: &str, start: Moment) -> Self {
        Self {
            filter,
            netns: BTreeMap::new(),
            own: None,
            kernel: kernel.to_owned(),
            missing: Vec::new(),
            lost_until: Duration::ZERO,
            packets_lost_until: Duration::ZERO,
            storm_until: Duration::ZERO,
            held: VecDeque::new(),
            summary: Summary { started: start.wall, ..Summary::default() },
        }
    }

    /// The resets of this namespace are shown. `around`: what is known of it at the start.
    pub fn observe(&mut self, netns: NetnsId, around: Surroundings, location: Option<Arc<Location>>) {
        if location.is_none() {
            self.own = Some(netns);
        }
        self.netns.insert(netns, OfNetns { around, location, ..OfNetns::default() });
    }

    /// Those of this one no longer.
    pub fn forget(&mut self, netns: NetnsId) {
        self.netns.remove(&netns);
    }

    /// Who listens and holds connections there now.
    pub fn look(&mut self, netns: NetnsId, holders: Holders) {
        if let Some(of) = self.netns.get_mut(&netns) {
            of.around.listening = holders.listening();
            of.around.device_ports = holders.device_ports();
            of.holders = holders.after(std::mem::take(&mut of.holders));
        }
    }

    /// What the events lack, by name.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Judges what was drained and joined at `now`. `last`: nothing comes after it.
    pub fn step(&mut self, live: Live, now: Moment, last: bool) -> Batch {
        if let Some(events) = &live.events {
            self.missing.clone_from(&events.missing);
            if events.lost + live.not_examined > 0 {
                self.lost_until = now.mono + SUSPECT;
            }
            *self.summary.counted.get_or_insert(0) += events.read + events.lost;
            self.summary.passed_over += events.elsewhere + events.bogus_received;
        }
        if live.not_examined > 0 {
            self.storm_until = now.mono + SUSPECT;
        }
        if live.packets.lost + live.packets_not_examined > 0 {
            self.packets_lost_until = now.mono + SUSPECT;
        }
        let mut batch = match &live.events {
            Some(events) => Batch { lost: events.lost, not_examined: live.not_examined, ..Batch::default() },
            None => Batch { lost: live.packets.lost, not_examined: live.packets_not_examined, ..Batch::default() },
        };
        self.summary.lost += batch.lost;
        self.summary.not_examined += batch.not_examined;
        if live.events.is_some() {
            self.summary.packets_left += live.packets_not_examined;
        }
        self.summary.packets_lost += live.packets.lost;
        self.summary.forwarded += live.packets.forwarded;
        batch.resets.reserve_exact(live.resets.len());
        self.held.extend(live.resets);
        let waits = live.events.is_some() && !last;
        while let Some(reset) = self.held.pop_front() {
            let counted = reset.event.is_some() || reset.at() + COUNTED < now.mono;
            if waits && !counted && self.held.len() < MOST_HELD {
                self.held.push_front(reset);
                break;
            }
            self.judge(reset, &live.packets.ttls, live.events.is_some(), live.has_packets, now, &mut batch);
        }
        batch
    }

    fn judge(
        &mut self,
        reset: reset::Reset,
        ttls: &PeerTtls,
        has_events: bool,
        has_packets: bool,
        now: Moment,
        batch: &mut Batch,
    ) {
        let at = reset.at();
        let traced = match has_events {
            true => Traced::new(&self.kernel, &self.missing, at >= self.lost_until),
            false => Traced::NONE,
        };
        if reset.event.is_none() {
            let Some(packet) = reset.packet.as_ref().filter(|packet| self.netns.contains_key(&packet.netns)) else {
                return;
            };
            match packet.is_in_anothers_name() {
                true if traced.sent => {}
                // A transparent proxy's TCP sends such ones, too.
                true => {
                    self.summary.forwarded += 1;
                    return;
                }
                false if packet.local_here => {}
                false => return,
            }
            // Its event is among those that are only counted.
            if has_events && at < self.storm_until {
                self.summary.packets_left += 1;
                return;
            }
        } else if self.is_of_another_namespace(&reset, has_packets) {
            self.summary.passed_over += 1;
            return;
        }
        let known = reset.netns().or(self.own).filter(|netns| self.netns.contains_key(netns));
        let place = known.or_else(|| self.netns.keys().next().copied());
        let Some(of) = place.and_then(|netns| self.netns.get_mut(&netns)) else { return };
        of.around.traced = traced;
        let of_event = reset.event.is_some();
        let kind = of.around.kind(&reset, ttls);
        let location = of.location.clone().filter(|_| reset.netns().is_some());
        let reset = Reset { location, ..Reset::new(reset, kind, &of.holders, now) };
        if self.filter.keeps(&reset) {
            batch.resets.push(reset);
        } else if of_event {
            self.summary.passed_over += 1;
        }
    }

    /// It is known to be another's; or its namespace is not clear, and its packet did not pass here, where all are seen.
    fn is_of_another_namespace(&self, reset: &reset::Reset, has_packets: bool) -> bool {
        match reset.netns() {
            Some(netns) => !self.netns.contains_key(&netns),
            None => has_packets && reset.at() >= self.packets_lost_until,
        }
    }

    /// Adds a reset that was handed out to the summary.
    pub fn count(&mut self, reset: &Reset) {
        let place = reset.joined.netns().or(self.own).and_then(|netns| self.netns.get(&netns));
        let ephemeral = place.or(self.netns.values().next()).map(|of| of.around.ephemeral).unwrap_or_default();
        self.summary.add(reset, ephemeral);
    }

    /// `not_shown` of all resets handed out found no room in the output.
    pub fn summary(&self, now: Moment, not_shown: u64) -> Summary {
        let duration = now.wall.saturating_sub(self.summary.started);
        Summary { duration, not_shown, ..self.summary.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reset::Kind;
    use crate::reset::testing::{NETNS, event, packet};
    use crate::source::reset_events::{Direction, EventAccount, ResetEvent};
    use crate::source::reset_packets::ResetPacket;

    fn tracer(start: Moment) -> Tracer {
        let mut tracer = Tracer::new(Filter::default(), "6.18", start);
        tracer.observe(NETNS, Surroundings::default(), None);
        tracer
    }

    fn at(s: u64) -> Moment {
        Moment { mono: Duration::from_secs(s), wall: Duration::from_secs(1_000 + s), ..Moment::default() }
    }

    #[test]
    fn what_is_unclear_belongs_elsewhere_where_packets_are_seen_and_its_packet_was_not() {
        let shown = |netns, has_packets, lost| {
            let event = ResetEvent { netns, ..event(Direction::Sent, "127.0.0.1:9", "127.0.0.1:10") };
            let reset = reset::Reset { event: Some(event), ..reset::Reset::default() };
            let events = Some(EventAccount { read: 1, ..EventAccount::default() });
            let mut live = Live { resets: vec![reset], events, has_packets, ..Live::default() };
            live.packets.lost = lost;
            let mut tracer = tracer(at(90));
            let shown = tracer.step(live, at(101), true).resets.len();
            (shown, tracer.summary(at(102), 0).passed_over)
        };
        assert_eq!(shown(None, false, 0), (1, 0), "no packets at all");
        assert_eq!(shown(None, true, 0), (0, 1));
        assert_eq!(shown(Some(NETNS), true, 0), (1, 0), "a rule may have dropped its packet");
        assert_eq!(shown(None, true, 1), (1, 0), "its packet may be the one that was lost");
    }

    /// A refusal without an event was a firewall's; but not where its record is among those that are lost, which is known later.
    #[test]
    fn a_packet_without_an_event_waits_for_the_counts() {
        let packet = packet(Direction::Sent, "10.0.0.9:9000", "10.0.0.7:40000");
        let step = |tracer: &mut Tracer, resets, lost, s, last| {
            let events = Some(EventAccount { lost, ..EventAccount::default() });
            let live = Live { resets, events, has_packets: true, ..Live::default() };
            let resets = tracer.step(live, at(s), last).resets;
            resets.iter().map(|reset| reset.what).collect::<Vec<_>>()
        };
        let alone = || vec![reset::Reset { packet: Some(packet.clone()), ..reset::Reset::default() }];
        for (lost, expected) in [(0, Kind::FirewallReject), (1, Kind::Refused)] {
            let mut tracer = tracer(at(90));
            assert_eq!(step(&mut tracer, alone(), 0, 100, false), []);
            assert_eq!(step(&mut tracer, vec![], lost, 101, false), []);
            assert_eq!(step(&mut tracer, vec![], 0, 103, false), [expected], "{lost} lost");
        }
        assert_eq!(step(&mut tracer(at(90)), alone(), 0, 100, true), [Kind::FirewallReject], "nothing comes after it");
    }

    #[test]
    fn what_a_forward_rule_sends_is_shown_and_what_is_forwarded_only_counted() {
        let sent = packet(Direction::Sent, "10.0.0.9:9000", "10.0.0.7:40000");
        let foreign = ResetPacket { local_here: false, ..sent };
        let shown = |packet: &ResetPacket, has_events: bool| {
            let resets = vec![reset::Reset { packet: Some(packet.clone()), ..reset::Reset::default() }];
            let events = has_events.then(EventAccount::default);
            let mut tracer = tracer(at(90));
            let batch = tracer.step(Live { resets, events, has_packets: true, ..Live::default() }, at(100), true);
            let words = batch.resets.iter().map(|reset| reset.words().into_owned()).collect::<Vec<_>>();
            (words, tracer.summary(at(102), 0).forwarded)
        };
        assert_eq!(shown(&foreign, true), (vec!["firewall reject (forward rule)".to_owned()], 0));
        assert_eq!(shown(&foreign, false), (vec![], 1), "a transparent proxy's TCP may have sent it");
        assert_eq!(shown(&ResetPacket { ttl: 63, ..foreign.clone() }, true).0, [""; 0]);
        assert_eq!(shown(&ResetPacket { forwarded: true, ..foreign }, true).0, [""; 0]);
    }

    #[test]
    fn an_empty_trace_has_an_empty_summary() {
        let mut tracer = tracer(at(5));
        assert!(tracer.step(Live::default(), at(6), true).resets.is_empty());
        let summary = tracer.summary(at(8), 0);
        assert_eq!((summary.total(), summary.lost, summary.duration), (0, 0, Duration::from_secs(3)));
    }
}
