//! All connections of a capture, in bounded memory: those that failed or were reset are kept, of the others the number.
//!
//! Of more connections than can be followed at the same time those that ended are folded into what their service did, and of each
//! is kept by what a later packet is known to be its own. One that has not ended is let go only where too many are open: what it
//! lacks is not held against it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::around::{Around, Tries};
use super::flow::{Flow, Side};
use super::flows::{Attempt, Flows};
use super::kept::Kept;
use super::link::{Held, Segment};
use super::past::Pasts;
use crate::source::reset_packets::Quoted;

/// Connections that are followed at the same time, about 10 MB.
const OPEN: usize = 12_288;
/// An open connection that was silent for less may have been answered right afterwards.
const SILENT: Duration = Duration::from_secs(1);
/// Services that are told apart, and connects that are remembered for what was tried beside them.
const SERVICES: usize = 14_336;
const ATTEMPTS: usize = 8_192;
/// The same packet at a second place of the capture comes within this time.
const TWICE: Duration = Duration::from_millis(20);
const RECENT: usize = 64;

/// Follows the connections of a capture.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    kept: Kept,
    // A table of the connections themselves would be moved whenever it grows, half empty.
    open: HashMap<(SocketAddr, SocketAddr), Box<Flow>>,
    past: Pasts,
    tries: Tries,
    flows: Flows,
    recent: VecDeque<Seen>,
    clock: Duration,
}

/// A packet as it was, for one that is captured again at another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    at: Duration,
    interface: u32,
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    ip_id: Option<u16>,
    ttl: Option<u8>,
    flags: u8,
    length: u32,
    /// How its data begins: an injected packet has the numbers of the one whose place it takes.
    data: [u8; 16],
}

fn key(segment: &Segment<'_>) -> (SocketAddr, SocketAddr) {
    let (a, b) = (segment.from, segment.to);
    if a <= b { (a, b) } else { (b, a) }
}

impl Tracker {
    /// Whose side the capture was made on, where that is given.
    pub fn local(&mut self, addresses: &[IpAddr]) {
        self.flows.here.given(addresses);
    }

    /// Keeps every connection, for what another capture has of it.
    pub fn keep_all(&mut self) {
        self.kept.all = true;
    }

    /// The name of a host whose address is not known.
    pub fn name(&mut self, address: IpAddr, name: &str) {
        self.flows.names.insert(address, name.to_owned());
    }

    /// One more than the highest number that was sent between these ends.
    pub fn next(&self, from: SocketAddr, to: SocketAddr) -> Option<u32> {
        let flow = self.open.get(&if from <= to { (from, to) } else { (to, from) })?;
        flow.end(flow.side_of(from)).next
    }

    /// The time of a packet: its own, or that of the one before.
    pub fn time(&mut self, at: Option<Duration>) -> Duration {
        match at {
            Some(at) => {
                let (first, last) = self.flows.span.unwrap_or((at, at));
                self.flows.span = Some((first.min(at), last.max(at)));
                self.clock = at;
            }
            None => {
                self.flows.untimed += 1;
                // What comes later is later.
                self.clock = self.clock.saturating_add(Duration::from_nanos(1));
            }
        }
        self.clock
    }

    /// Takes the next packet.
    pub fn packet(&mut self, held: Held<'_>, at: Duration, interface: u32, link: u32, cut: bool) {
        self.flows.packets += 1;
        match held {
            Held::Segment(segment) => {
                self.flows.cut += u64::from(cut);
                self.segment(&segment, interface);
            }
            Held::Error(error) => self.error(at, error),
            Held::Other => {}
            Held::Unread => {
                if self.flows.unread.len() < 64 || self.flows.unread.contains_key(&link) {
                    *self.flows.unread.entry(link).or_default() += 1;
                }
            }
        }
    }

    fn segment(&mut self, segment: &Segment<'_>, interface: u32) {
        use super::link::RST;
        self.flows.segments += 1;
        let key = key(segment);
        let known = self.open.get(&key).map(|flow| flow.is_over_for(segment));
        if known == Some(true)
            && let Some(over) = self.open.remove(&key)
        {
            self.close(over);
        }
        if known != Some(false) {
            self.make_room();
            let flow = self.begun(&key, segment);
            self.open.insert(key, Box::new(flow));
        }
        let twice = self.is_twice(segment, interface);
        let Some(flow) = self.open.get_mut(&key) else { return };
        let side = flow.side_of(segment.from);
        if segment.has(RST) {
            self.flows.resets += 1;
            self.flows.resets_by[usize::from(side == Side::Acceptor)] += 1;
        }
        if twice {
            self.flows.duplicates += 1;
            flow.again(side);
            return;
        }
        self.flows.here.segment(segment);
        let (accepted, established) = (flow.accepted, flow.established);
        flow.segment(segment);
        if established.is_none() && flow.established.is_some() {
            self.flows.here.handshake(flow);
        }
        if accepted.is_none() && flow.accepted.is_some() {
            let attempts = &mut self.flows.attempts;
            if attempts.len() >= ATTEMPTS {
                attempts.pop_front();
            }
            attempts.push_back(Attempt { at: segment.at, client: flow.initiator.ip(), service: flow.acceptor });
        }
    }

    /// A connection that is not followed: the next one, or one that was let go.
    fn begun(&mut self, key: &(SocketAddr, SocketAddr), segment: &Segment<'_>) -> Flow {
        if let Some(flow) = self.past.take(key).and_then(|past| past.resumed(segment)) {
            return flow;
        }
        let number = self.flows.connections;
        self.flows.connections += 1;
        Flow::new(number, segment)
    }

    /// The same packet was seen a moment ago on another interface, or behind a router, bridge or VLAN: with the same IP id.
    fn is_twice(&mut self, segment: &Segment<'_>, interface: u32) -> bool {
        let seen = Seen {
            at: segment.at,
            interface,
            from: segment.from,
            to: segment.to,
            seq: segment.seq,
            ack: segment.ack,
            ip_id: segment.ip_id,
            ttl: segment.ttl,
            flags: segment.flags,
            length: segment.length,
            data: std::array::from_fn(|at| segment.data.get(at).copied().unwrap_or(0)),
        };
        let same = |other: &&Seen| {
            let ids = other.ip_id == seen.ip_id && seen.ip_id.is_some_and(|id| id != 0);
            // First what differs between most: this is asked of each packet, against many.
            (other.seq, other.ack) == (seen.seq, seen.ack)
                && (other.interface != seen.interface || ids)
                && Seen { at: seen.at, interface, ttl: seen.ttl, ..**other } == seen
        };
        let recent = self.recent.iter().rev().take_while(|other| seen.at.saturating_sub(other.at) < TWICE);
        let twice = recent.take(RECENT).any(|other| same(&other));
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(seen);
        twice
    }

    fn error(&mut self, at: Duration, error: Quoted) {
        self.flows.errors += 1;
        let (a, b) = (error.source, error.destination);
        let key = if a <= b { (a, b) } else { (b, a) };
        if let Some(flow) = self.open.get_mut(&key) {
            flow.icmp(at, error);
        }
    }

    /// Lets go of those that ended, if they are many, else of those that are silent longest.
    fn make_room(&mut self) {
        if self.open.len() < OPEN {
            return;
        }
        let over = self.open.values().filter(|flow| flow.is_over()).count();
        let only_over = over >= OPEN / 4;
        let concerned = |flow: &Flow| !only_over || flow.is_over();
        let mut times: Vec<Duration> =
            self.open.values().filter(|flow| concerned(flow)).map(|flow| flow.last).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        let old = |flow: &Flow| concerned(flow) && flow.last <= median;
        let old: Vec<_> = self.open.iter().filter(|(_, flow)| old(flow)).map(|(key, _)| *key).collect();
        for key in old {
            if let Some(mut flow) = self.open.remove(&key) {
                self.past.remember(&key, &flow);
                if !flow.is_over() {
                    flow.let_go = Some(self.clock);
                }
                self.close(flow);
            }
        }
    }

    fn close(&mut self, flow: Box<Flow>) {
        let flows = &mut self.flows;
        let undecided = flow.let_go.is_some_and(|at| at.saturating_sub(flow.last) < SILENT) && !flow.has_shown();
        flows.let_go += u64::from(flow.let_go.is_some());
        // One that was resumed has been counted there.
        let counts = !flow.resumed && (flows.services.len() < SERVICES || flows.services.contains_key(&flow.acceptor));
        if counts {
            let service = flows.services.entry(flow.acceptor).or_default();
            service.connections += 1;
            service.tried += u64::from(flow.opened.is_some());
            service.accepted += u64::from(flow.accepted.is_some());
            service.let_go += u64::from(undecided);
        }
        let told = !undecided && flow.is_told();
        if !told && !self.kept.all {
            return;
        }
        if told {
            self.tries.take(&flow);
        }
        let Flows { attempts, services, here, .. } = &self.flows;
        let around = Around { attempts, services, here, tries: &self.tries, until: self.clock };
        self.kept.take(flow, &around);
    }

    /// Connections that are followed now.
    #[cfg(test)]
    pub fn followed(&self) -> usize {
        self.open.len()
    }

    /// What was seen; `format` and `broken` are the file's.
    pub fn finish(mut self, format: &'static str, broken: Option<String>) -> Flows {
        for flow in std::mem::take(&mut self.open).into_values() {
            let silent = self.clock.saturating_sub(flow.last) >= SILENT;
            self.flows.silent += u64::from(silent && flow.accepted.is_some() && !flow.is_over());
            self.close(flow);
        }
        let mut flows = self.flows;
        let until = flows.span.map_or(self.clock, |(_, last)| last);
        let Flows { attempts, services, here, .. } = &flows;
        let around = Around { attempts, services, here, tries: &self.tries, until };
        let (told, dropped, further) = self.kept.finish(&around);
        (flows.told, flows.told_dropped, flows.further) = (told, dropped, further);
        flows.forgotten = self.past.forgotten;
        (flows.format, flows.broken) = (format, broken);
        flows
    }
}
