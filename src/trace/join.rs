//! Which event, which packet and which last words belong to the same RST.
//!
//! They come by different ways, each in order, and wait for each other: from the moment they are read until everything older
//! has certainly been read too.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::reset::pairing::pair;
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::{Direction, Missing, ResetEvent};
use crate::source::reset_packets::{ResetPacket, Signature};

/// Event and packet of one RST are microseconds apart, unless a queue or a busy CPU lies between them.
const TOGETHER: Duration = Duration::from_millis(40);

/// What must have left an event if TCP was behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Every RST that TCP sends: Linux 6.10 and later. Before, answers without a full socket left no event.
    pub sent: bool,
    pub received: bool,
    /// State changes are watched.
    pub states: bool,
}

impl Traced {
    /// By a kernel of this release (as in /proc/sys/kernel/osrelease), with what its tracepoints lack. Unless it is `certain`
    /// that no event was lost, the absence of one proves nothing.
    pub fn new(kernel: &str, missing: &[Missing], certain: bool) -> Self {
        let lacks = |name: &str| missing.iter().any(|missing| missing.name == name);
        Self {
            sent: certain && at_least(kernel, (6, 10)) && !lacks("tcp/tcp_send_reset"),
            received: certain && !lacks("tcp/tcp_receive_reset"),
            states: !lacks("sock/inet_sock_set_state"),
        }
    }

    pub const ALL: Self = Self { sent: true, received: true, states: true };
    pub const NONE: Self = Self { sent: false, received: false, states: false };
}

/// Whether a kernel release, `6.18.5-generic`, is this version or later.
fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= wanted)
}

/// One RST by event, packet, or both; with the last words of the connection that it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    pub event: Option<ResetEvent>,
    pub packet: Option<ResetPacket>,
    pub word: Option<DestroyedSocket>,
}

impl Joined {
    /// When it happened. The event of a reset by the socket itself comes after its packet (tcp_send_active_reset()), and on
    /// loopback even after the peer has received it.
    pub fn at(&self) -> Duration {
        let times = [self.event.as_ref().map(|event| event.at), self.packet.as_ref().map(|packet| packet.at)];
        times.into_iter().flatten().min().unwrap_or_default()
    }

    /// The ends of the connection that this reset ended; `None` where there was none, as for an answer to a SYN.
    fn connection(&self) -> Option<Ends> {
        let (local, peer) = match (&self.event, &self.packet) {
            (Some(event), _) => {
                let ended = event.active
                    || event.direction == Direction::Received
                    || event.reason.as_deref() == Some("TCP_ABORT_ON_DATA");
                ended.then_some((event.local, event.peer?))?
            }
            (None, Some(packet)) => {
                let ended = packet.direction == Direction::Received || packet.signature() == Signature::Active;
                ended.then_some((packet.local, packet.peer))?
            }
            (None, None) => return None,
        };
        Some((local, peer))
    }
}

/// What was read in one go, each in order of time.
#[derive(Debug, Default)]
pub struct Read {
    pub events: Vec<ResetEvent>,
    pub packets: Vec<ResetPacket>,
    pub words: Vec<DestroyedSocket>,
}

#[derive(Debug, Default)]
pub struct Joiner {
    events: Vec<(ResetEvent, Option<ResetPacket>)>,
    packets: Vec<ResetPacket>,
    words: Vec<DestroyedSocket>,
}

/// Local and peer.
type Ends = (SocketAddr, SocketAddr);

impl Joiner {
    /// Takes what was read. Hands out, in order of time, what happened before `until` (CLOCK_BOOTTIME): nothing older may
    /// come later.
    pub fn step(&mut self, read: Read, until: Duration) -> Vec<Joined> {
        self.events.extend(read.events.into_iter().map(|event| (event, None)));
        self.packets.extend(read.packets);
        self.words.extend(read.words);
        self.pair();
        let (due, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.events).into_iter().partition(|(event, _)| event.at < until);
        self.events = wait;
        let (alone, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.packets).into_iter().partition(|packet| packet.at < until);
        self.packets = wait;
        let mut out: Vec<Joined> =
            due.into_iter().map(|(event, packet)| Joined { event: Some(event), packet, word: None }).collect();
        out.extend(alone.into_iter().map(|packet| Joined { packet: Some(packet), ..Joined::default() }));
        out.sort_by_key(Joined::at);
        self.remember(&mut out, until);
        out
    }

    fn pair(&mut self) {
        let lonely: Vec<usize> =
            self.events.iter().enumerate().filter(|(_, (_, slot))| slot.is_none()).map(|(index, _)| index).collect();
        if self.packets.is_empty() || lonely.is_empty() {
            return;
        }
        let events: Vec<&ResetEvent> = lonely.iter().filter_map(|index| Some(&self.events.get(*index)?.0)).collect();
        let pairs = pair(&events, &self.packets, |_| (TOGETHER, TOGETHER));
        let mut packets: Vec<Option<ResetPacket>> = std::mem::take(&mut self.packets).into_iter().map(Some).collect();
        for (event, packet) in lonely.into_iter().zip(pairs) {
            if let (Some((_, slot)), Some(packet)) = (self.events.get_mut(event), packet) {
                *slot = packets.get_mut(packet).and_then(Option::take);
            }
        }
        self.packets = packets.into_iter().flatten().collect();
    }

    /// Gives each reset the last words of its connection, which were heard after it.
    fn remember(&mut self, resets: &mut [Joined], until: Duration) {
        if self.words.is_empty() {
            return;
        }
        let mut words: Vec<Option<DestroyedSocket>> = std::mem::take(&mut self.words).into_iter().map(Some).collect();
        let mut by_ends: HashMap<Ends, VecDeque<usize>> = HashMap::new();
        for (index, word) in words.iter().enumerate() {
            if let Some(word) = word {
                by_ends.entry((word.local, word.peer)).or_default().push_back(index);
            }
        }
        for reset in resets {
            let Some(waiting) = reset.connection().and_then(|ends| by_ends.get_mut(&ends)) else { continue };
            let at = reset.at();
            while let Some(index) = waiting.pop_front() {
                let Some(slot) = words.get_mut(index) else { break };
                if slot.as_ref().is_some_and(|word| word.at >= at) {
                    reset.word = slot.take();
                    break;
                }
            }
        }
        // Most connections end without a reset.
        self.words = words.into_iter().flatten().filter(|word| word.at >= until).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, packet};
    use super::*;

    const END: Duration = Duration::from_secs(1_000);

    fn later<T>(mut item: T, at: impl Fn(&mut T) -> &mut Duration, micros: u64) -> T {
        *at(&mut item) += Duration::from_micros(micros);
        item
    }

    fn event_at(peer: &str, micros: u64) -> ResetEvent {
        later(event(Direction::Sent, "10.0.0.1:80", peer), |e| &mut e.at, micros)
    }

    fn packet_at(peer: &str, micros: u64) -> ResetPacket {
        later(packet(Direction::Sent, "10.0.0.1:80", peer), |p| &mut p.at, micros)
    }

    fn read(events: &[ResetEvent], packets: &[ResetPacket]) -> Read {
        Read { events: events.to_vec(), packets: packets.to_vec(), words: Vec::new() }
    }

    fn shape(resets: &[Joined]) -> Vec<(bool, bool)> {
        resets.iter().map(|reset| (reset.event.is_some(), reset.packet.is_some())).collect()
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(at_least("6.18.5", (6, 10)) && at_least("6.10.0-rc1", (6, 10)) && at_least("7.0", (6, 10)));
        assert!(!at_least("6.9.12-generic", (6, 10)) && !at_least("5.15", (6, 10)) && !at_least("", (6, 10)));
    }

    #[test]
    fn event_and_packet_of_one_reset_are_one_whichever_was_read_first() {
        let (one, other) = (event_at("10.0.0.2:4000", 0), packet_at("10.0.0.2:4000", 30));
        let mut joiner = Joiner::default();
        assert!(joiner.step(read(std::slice::from_ref(&one), &[]), Duration::ZERO).is_empty(), "it waits");
        assert_eq!(shape(&joiner.step(read(&[], std::slice::from_ref(&other)), END)), [(true, true)]);
        assert!(joiner.step(read(&[], &[other]), Duration::ZERO).is_empty());
        assert_eq!(shape(&joiner.step(read(&[one], &[]), END)), [(true, true)]);
        assert!(joiner.step(Read::default(), END).is_empty());
    }

    #[test]
    fn a_tuple_that_resets_twice_is_two_resets() {
        let events = [event_at("10.0.0.2:4000", 0), event_at("10.0.0.2:4000", 500)];
        let packets = [packet_at("10.0.0.2:4000", 10), packet_at("10.0.0.2:4000", 510)];
        let pairs = Joiner::default().step(read(&events, &packets), END);
        assert_eq!(shape(&pairs), [(true, true), (true, true)]);
        assert_eq!(pairs[1].packet.as_ref(), Some(&packets[1]));
    }

    #[test]
    fn what_has_no_partner_stands_alone_in_order_of_time() {
        let events = [event_at("10.0.0.2:4000", 100), event_at("10.0.0.2:4001", 90_000)];
        let packets = [packet_at("10.0.0.3:4000", 50), packet_at("10.0.0.2:4001", 150)];
        let pairs = Joiner::default().step(read(&events, &packets), END);
        assert_eq!(shape(&pairs), [(false, true), (true, false), (false, true), (true, false)], "90 ms is too far");
    }

    #[test]
    fn a_listener_learns_its_peer_from_the_packet_that_nobody_else_claims() {
        let events = [event_at("", 0), event_at("10.0.0.2:4000", 1)];
        assert_eq!(events[0].peer, None);
        let packets = [packet_at("10.0.0.2:4000", 2), packet_at("10.0.0.9:4000", 3)];
        let pairs = Joiner::default().step(read(&events, &packets), END);
        assert_eq!(shape(&pairs), [(true, true), (true, true)]);
        assert_eq!(pairs[0].packet.as_ref().unwrap().peer, "10.0.0.9:4000".parse().unwrap());
    }
    #[test]
    fn a_connection_that_was_reset_speaks_its_last_words() {
        let mut reset = event_at("10.0.0.2:4000", 0);
        reset.active = true;
        let answer = event_at("10.0.0.2:4001", 0);
        let word = |peer: &str, micros| {
            let mut word = super::super::testing::word("10.0.0.1:80", peer);
            word.at = reset.at + Duration::from_micros(micros);
            word
        };
        let mut joiner = Joiner::default();
        // An earlier connection with the same ends, the one that was reset, and one that a mere answer cannot have ended.
        let earlier = DestroyedSocket { at: reset.at - Duration::from_millis(1), ..word("10.0.0.2:4000", 0) };
        let mut heard = read(&[reset.clone(), answer], &[]);
        heard.words = vec![earlier, word("10.0.0.2:4000", 900), word("10.0.0.2:4001", 900)];
        let resets = joiner.step(heard, END);
        let told: Vec<_> = resets.iter().map(|reset| reset.word.as_ref().map(|word| word.at)).collect();
        assert_eq!(told, [Some(reset.at + Duration::from_micros(900)), None]);
        assert!(joiner.words.is_empty(), "what is too old for any later reset is forgotten");
    }
}
