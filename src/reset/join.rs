//! Which event, which packet and which destroyed socket belong to the same RST.
//!
//! They come by different ways, each in order, and wait for each other: from the moment they are read until everything older
//! has certainly been read too.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::aborted::{Aborted, ON_THE_WAY};
use super::closed::Closed;
use super::errors::{Errors, JoinedError};
use super::pairing::{LATER, pair};
use super::received::Received;
use super::room::Room;
use super::{Answered, Ends, Reset};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::{Direction, ResetEvent, SocketError};
use crate::source::reset_packets::ResetPacket;
use crate::value::{NetnsId, TcpState};

/// Resets that are remembered for the sockets they ended.
pub(super) const REMEMBERED: usize = 20_000;
/// tcp_close() forgets a connection (tcp_set_state()) before it sends the RST (tcp_send_active_reset()): what arrives between the
/// two on another CPU is answered first.
const CLOSING: Duration = Duration::from_millis(10);

/// A received packet has its time from when it was queued for its CPU (net/core/dev.c netif_rx(), with netdev_tstamp_prequeue), and TCP
/// looks at it when ksoftirqd has its turn: where the CPU is busy, a whole batch of 64 some milliseconds later.
const IN_BACKLOG: Duration = Duration::from_millis(100);

/// A packet is read so much later than its event where the reading itself was held up.
const HELD_UP: Duration = Duration::from_secs(60);

/// What was read in one go, each in order of time.
#[derive(Debug, Default)]
pub struct Drained {
    pub events: Vec<ResetEvent>,
    pub packets: Vec<ResetPacket>,
    pub destroyed: Vec<(NetnsId, DestroyedSocket)>,
    pub errors: Vec<SocketError>,
}

/// What a step hands out.
#[derive(Debug, Default)]
pub struct Joined {
    /// In order of time.
    pub resets: Vec<Reset>,
    /// Packets that may be of one of too many events that were handed out without theirs: by the place where they were seen.
    pub unclear: Vec<NetnsId>,
    pub endings: Vec<(NetnsId, Ending)>,
    /// In order of time.
    pub errors: Vec<JoinedError>,
}

/// A destroyed connection and what ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub socket: DestroyedSocket,
    pub end: End,
}

/// What ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A RST came while it was open in both directions.
    Reset,
    /// A RST came after the peer had closed: the peer announced the end.
    ResetAfterFin,
    /// Its retransmissions were never answered.
    GaveUp,
    /// A close, or nothing that was seen.
    Other,
}

#[derive(Debug, Default)]
pub struct Joiner {
    /// There are no events: a received packet is all that tells of a connection that it ended.
    pub packets_alone: bool,
    /// There are no packets: none comes later than its event.
    pub events_alone: bool,
    events: Vec<ResetEvent>,
    packets: Vec<ResetPacket>,
    destroyed: Vec<(NetnsId, DestroyedSocket)>,
    errors: Errors,
    /// Events that were handed out without their packet, which may have waited in a queueing discipline.
    unseen: VecDeque<ResetEvent>,
    /// The latest of them that found no room: a packet from about then may be its.
    forgotten: Duration,
    received: Received,
    aborted: Aborted,
    closed: Closed,
}

impl Joiner {
    /// What waits for a partner.
    pub fn waiting(&self) -> usize {
        self.events.len() + self.packets.len()
    }

    /// Events among them.
    pub fn waiting_events(&self) -> usize {
        self.events.len()
    }

    /// Takes what was read. Hands out what happened before `until` (CLOCK_BOOTTIME): nothing older may come later.
    pub fn step(&mut self, read: Drained, until: Duration) -> Joined {
        self.events.extend(read.events);
        self.packets.extend(read.packets);
        self.destroyed.extend(read.destroyed);
        self.errors.read(read.errors);
        for (_, socket) in &self.destroyed[self.closed.taken.min(self.destroyed.len())..] {
            self.closed.remember(socket);
        }
        let (mut resets, unclear) = self.due(until);
        resets.sort_by_cached_key(Reset::at);
        // Those that still wait, too: an answer may come shortly before the reset that it belongs to.
        let waiting = self.events.iter().filter(|event| event.ends_a_connection());
        let waiting = waiting.filter(|event| event.state_before() != Some(TcpState::SynSent));
        let waiting = waiting.filter_map(|event| Some(((event.local, event.peer?), event.at)));
        let due = resets.iter().filter_map(|reset| Some((reset.ended_connection()?, reset.at())));
        let answers =
            resets.iter().any(|reset| reset.direction() == Direction::Sent && reset.ended_connection().is_none());
        let ended: HashMap<Ends, Duration> = if answers { waiting.chain(due).collect() } else { HashMap::new() };
        resets.iter_mut().for_each(|reset| self.remember(reset, &ended));
        // Those that still wait, too: their resets do not.
        give_ended(&mut resets, &self.destroyed);
        for reset in resets.iter_mut().filter(|reset| reset.ended.is_none() && reset.answers_after_close()) {
            let ends = reset.local().zip(reset.peer());
            reset.ended = ends.and_then(|ends| self.closed.before(ends, reset.at())).map(Box::new);
        }
        let errors = self.errors.join(&mut resets, until);
        let (due, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.destroyed).into_iter().partition(|(_, socket)| socket.at < until);
        self.destroyed = wait;
        self.closed.taken = self.destroyed.len();
        let ending = |(netns, socket)| (netns, Ending { end: self.received.end_of(&socket), socket });
        let endings = due.into_iter().map(ending).collect();
        self.forget(until);
        Joined { resets, unclear, endings, errors }
    }

    /// Pairs what is there and takes out what happened before `until`; and where packets were seen of which it is not clear
    /// whether they are resets of their own.
    fn due(&mut self, until: Duration) -> (Vec<Reset>, Vec<NetnsId>) {
        // Large things that come in order of time, but for a few: their times are sorted, and then they are moved once.
        self.events.sort_by_cached_key(|event| event.at);
        let all: Vec<&ResetEvent> = self.unseen.iter().chain(&self.events).collect();
        let mut in_order: Vec<usize> = (0..all.len()).collect();
        in_order.sort_by_key(|place| all[*place].at);
        let pairs = pair(&in_order.iter().map(|place| all[*place]).collect::<Vec<_>>(), &self.packets);
        let mut packet_of = vec![None; all.len()];
        in_order.into_iter().zip(pairs).for_each(|(place, packet)| packet_of[place] = packet);
        let paired = packet_of.split_off(self.unseen.len());
        let mut packets: Vec<Option<ResetPacket>> = std::mem::take(&mut self.packets).into_iter().map(Some).collect();
        let (mut out, mut unclear) = (Vec::with_capacity(self.events.len()), Vec::new());
        // By what was read, and not by `until`, which may be far ahead of it: a packet may be read later than its event.
        let newest =
            self.events.last().map(|event| event.at).max(packets.iter().flatten().map(|packet| packet.at).max());
        let old = newest.unwrap_or_default().min(until).saturating_sub(LATER);
        let mut late = packet_of.iter();
        self.unseen.retain(|event| late.next().is_none_or(Option::is_none) && event.at >= old);
        for index in packet_of.into_iter().flatten() {
            if let Some(slot) = packets.get_mut(index) {
                *slot = None;
            }
        }
        let mut waiting = Vec::new();
        for (event, index) in std::mem::take(&mut self.events).into_iter().zip(paired) {
            if event.at >= until {
                waiting.push((event, index));
                continue;
            }
            let packet = index.and_then(|index| packets.get_mut(index)?.take());
            if packet.is_none() && !self.events_alone {
                if self.unseen.len() >= REMEMBERED
                    && let Some(event) = self.unseen.pop_front()
                {
                    self.forgotten = self.forgotten.max(event.at);
                }
                self.unseen.push_back(event.clone());
            }
            out.push(Reset { event: Some(event), packet, ..Reset::default() });
        }
        // The packet of an event that still waits does so too.
        let held: Vec<usize> = waiting.iter().filter_map(|(_, index)| *index).collect();
        let mut keep = vec![false; packets.len()];
        held.into_iter().for_each(|index| keep[index] = true);
        let waits = |packet: &ResetPacket| {
            let received = packet.direction == Direction::Received && !self.packets_alone;
            packet.at + if received { IN_BACKLOG } else { Duration::ZERO } >= until
        };
        for (packet, keep) in packets.into_iter().zip(keep) {
            match packet {
                Some(packet) if keep || waits(&packet) => self.packets.push(packet),
                Some(packet) if !self.forgotten.is_zero() && packet.at <= self.forgotten + LATER => {
                    unclear.push(packet.netns);
                }
                Some(packet) => out.push(Reset { packet: Some(packet), ..Reset::default() }),
                None => {}
            }
        }
        self.events = waiting.into_iter().map(|(event, _)| event).collect();
        (out, unclear)
    }

    /// Lets go what nothing that comes after `until` can ask for, and the room that a storm took: an agent runs for months.
    fn forget(&mut self, until: Duration) {
        // The end of a row, after which nothing comes, is no time.
        if until == Duration::MAX {
            return;
        }
        while self.unseen.front().is_some_and(|event| event.at + HELD_UP < until) {
            self.unseen.pop_front();
        }
        self.unseen.give_back();
        self.aborted.forget(until);
        self.received.forget(until);
        self.closed.forget(until);
    }

    /// Keeps what later resets and destroyed sockets have to know of this one, and tells it what it has to know of those before.
    /// `ended`: the connections that resets of the same time end, and when.
    fn remember(&mut self, reset: &mut Reset, ended: &HashMap<Ends, Duration>) {
        let at = reset.at();
        let received = reset.direction() == Direction::Received;
        if received && reset.event.is_none() && !self.packets_alone {
            return;
        }
        if received {
            self.received.remember(reset);
        }
        let (Some(local), Some(peer)) = (reset.local(), reset.peer()) else { return };
        let ends = (local, peer);
        if reset.ended_connection().is_some() {
            self.aborted.remember(ends, at);
        } else if !received {
            let to_a_connect = reset.packet.as_ref().and_then(Answered::by) == Some(Answered::Syn);
            let reason = reset.event.as_ref().and_then(|event| event.reason.as_deref());
            let answers_nobody = reason.is_none_or(|reason| matches!(reason, "NO_SOCKET" | "TCP_FLAGS"));
            // The other end may be of this kernel too: its abort and its last segments overtake each other on the way here.
            let was_reset = [(local, peer), (peer, local)].iter().any(|ends| self.aborted.contains(ends, at));
            let is_being_reset = ended.get(&ends).is_some_and(|then| (at..=at + CLOSING).contains(then));
            let was_reset = was_reset || is_being_reset;
            let closed = self.closed.before(ends, at);
            // A close over unread data sends a RST and leaves nothing behind (net/ipv4/tcp.c __tcp_close()), also where that RST comes
            // later than this one. The peer's FIN alone counts as a byte.
            let closed_by_reset =
                closed.as_ref().is_some_and(|socket| socket.unread > 1 && at <= socket.at + ON_THE_WAY);
            reset.again = answers_nobody && !to_a_connect && (was_reset || closed_by_reset);
            // One whose retransmissions were never answered leaves nothing behind.
            let left_behind = closed.is_some_and(|socket| !socket.gave_up()) && !closed_by_reset;
            reset.closed = !to_a_connect && left_behind;
        }
    }
}

/// Gives each reset the connection that it ended, which was destroyed after it.
fn give_ended(resets: &mut [Reset], destroyed: &[(NetnsId, DestroyedSocket)]) {
    if destroyed.is_empty() {
        return;
    }
    let mut by_ends: HashMap<Ends, VecDeque<&DestroyedSocket>> = HashMap::new();
    for (_, socket) in destroyed {
        by_ends.entry((socket.local, socket.peer)).or_default().push_back(socket);
    }
    for reset in resets {
        let Some(waiting) = reset.connection().and_then(|ends| by_ends.get_mut(&ends)) else { continue };
        let at = reset.at();
        while let Some(socket) = waiting.pop_front() {
            if socket.at >= at {
                reset.ended = Some(Box::new(socket.clone()));
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NETNS, destroyed, event, packet};
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

    fn read(events: &[ResetEvent], packets: &[ResetPacket]) -> Drained {
        Drained { events: events.to_vec(), packets: packets.to_vec(), ..Drained::default() }
    }

    fn shape(resets: &[Reset]) -> Vec<(bool, bool)> {
        resets.iter().map(|reset| (reset.event.is_some(), reset.packet.is_some())).collect()
    }

    #[test]
    fn event_and_packet_of_one_reset_are_one_whichever_was_read_first() {
        let (one, other) = (event_at("10.0.0.2:4000", 0), packet_at("10.0.0.2:4000", 30));
        let mut joiner = Joiner::default();
        let wait = joiner.step(read(std::slice::from_ref(&one), &[]), Duration::ZERO);
        assert!(wait.resets.is_empty(), "it waits");
        let both = joiner.step(read(&[], std::slice::from_ref(&other)), END);
        assert_eq!(shape(&both.resets), [(true, true)]);
        let mut joiner = Joiner::default();
        assert!(joiner.step(read(&[], &[other]), Duration::ZERO).resets.is_empty());
        assert_eq!(shape(&joiner.step(read(&[one], &[]), END).resets), [(true, true)]);
        assert!(joiner.step(Drained::default(), END).resets.is_empty());
    }

    #[test]
    fn a_packet_that_waited_in_a_queue_is_nobody_elses() {
        let mut joiner = Joiner::default();
        let early = joiner.step(read(&[event_at("10.0.0.2:4000", 0)], &[]), Duration::from_secs(101));
        assert_eq!(shape(&early.resets), [(true, false)]);
        let late = joiner.step(read(&[], &[packet_at("10.0.0.2:4000", 1_500_000)]), Duration::from_secs(103));
        assert_eq!(shape(&late.resets), [], "the packet of the event above, and not one that TCP did not send");
    }

    #[test]
    fn a_packet_that_was_read_late_is_its_events_also_if_that_could_not_wait() {
        let mut joiner = Joiner::default();
        // So many waited that none was waited for any longer.
        let early = joiner.step(read(&[event_at("10.0.0.2:4000", 0)], &[]), Duration::MAX);
        assert_eq!(shape(&early.resets), [(true, false)]);
        let nothing = joiner.step(Drained::default(), Duration::MAX);
        let late = joiner.step(read(&[], &[packet_at("10.0.0.2:4000", 30)]), Duration::MAX);
        assert_eq!((shape(&nothing.resets), shape(&late.resets)), (Vec::new(), Vec::new()), "one reset and not two");
    }

    #[test]
    fn a_received_packet_waits_for_the_event_of_a_busy_cpu() {
        let received = later(packet(Direction::Received, "10.0.0.1:80", "10.0.0.2:4000"), |p| &mut p.at, 0);
        let told = later(event(Direction::Received, "10.0.0.1:80", "10.0.0.2:4000"), |e| &mut e.at, 20_000);
        let early = received.at + Duration::from_millis(10);
        let mut joiner = Joiner::default();
        assert_eq!(shape(&joiner.step(read(&[], std::slice::from_ref(&received)), early).resets), []);
        assert_eq!(shape(&joiner.step(read(&[told], &[]), END).resets), [(true, true)], "one reset and not two");
        let mut alone = Joiner { packets_alone: true, ..Joiner::default() };
        assert_eq!(shape(&alone.step(read(&[], &[received]), early).resets), [(false, true)], "there are no events");
    }

    #[test]
    fn where_too_many_events_had_no_packet_one_alone_is_not_taken_for_a_reset() {
        let events: Vec<_> = (0..=REMEMBERED as u64).map(|micros| event_at("10.0.0.2:4000", micros)).collect();
        let mut joiner = Joiner::default();
        joiner.step(read(&events, &[]), END);
        let alone = packet_at("10.0.0.2:4001", 1_500_000);
        let joined = joiner.step(read(&[], std::slice::from_ref(&alone)), END);
        assert_eq!((joined.resets, joined.unclear), (Vec::new(), vec![NETNS]));
        let later = ResetPacket { at: alone.at + LATER, ..alone };
        assert_eq!(shape(&joiner.step(read(&[], &[later]), END).resets), [(false, true)]);
    }

    #[test]
    fn a_tuple_that_resets_twice_is_two_resets() {
        let events = [event_at("10.0.0.2:4000", 0), event_at("10.0.0.2:4000", 500)];
        let packets = [packet_at("10.0.0.2:4000", 10), packet_at("10.0.0.2:4000", 510)];
        let joined = Joiner::default().step(read(&events, &packets), END).resets;
        assert_eq!(shape(&joined), [(true, true), (true, true)]);
        assert_eq!(joined[1].packet.as_ref(), Some(&packets[1]));
    }

    #[test]
    fn the_answer_to_what_was_on_the_way_when_a_connection_was_aborted_is_known_as_that() {
        let abort = ResetEvent { active: true, ..event_at("10.0.0.2:4000", 0) };
        let no_socket = |peer, micros| ResetEvent { reason: Some("NO_SOCKET".into()), ..event_at(peer, micros) };
        let events = [abort, no_socket("10.0.0.2:4000", 50), no_socket("10.0.0.2:4001", 60)];
        let again = |resets: &[Reset]| resets.iter().map(|reset| reset.again).collect::<Vec<_>>();
        let resets = Joiner::default().step(read(&events, &[]), END).resets;
        assert_eq!(again(&resets), [false, true, false]);
        // A client that connects anew from the same port is refused, and that is no rest of the old connection.
        let resets = Joiner::default().step(read(&events, &[packet_at("10.0.0.2:4000", 55)]), END).resets;
        assert_eq!(again(&resets), [false, false, false]);
    }

    #[test]
    fn an_answer_shortly_before_the_abort_is_known_as_that_also_where_the_abort_still_waits() {
        let answer = ResetEvent { reason: Some("NO_SOCKET".into()), ..event_at("10.0.0.2:4000", 0) };
        let abort = ResetEvent { active: true, ..event_at("10.0.0.2:4000", 50) };
        let between = answer.at + Duration::from_micros(20);
        let joined = Joiner::default().step(read(&[answer, abort], &[]), between);
        assert_eq!(joined.resets.iter().map(|reset| reset.again).collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn what_a_close_over_unread_data_leaves_is_a_reset_and_no_time_wait() {
        let answer = packet_at("10.0.0.2:4000", 0);
        let answer = ResetPacket { flags: 0x04, seq: 7, ack: 0, ..answer };
        let of = |unread| {
            let socket = DestroyedSocket { unread, ..destroyed("10.0.0.1:80", "10.0.0.2:4000") };
            let heard =
                Drained { packets: vec![answer.clone()], destroyed: vec![(NETNS, socket)], ..Drained::default() };
            let joined = Joiner::default().step(heard, END).resets;
            (joined[0].again, joined[0].closed)
        };
        assert_eq!((of(0), of(1), of(1_448)), ((false, true), (false, true), (true, false)), "a FIN is one byte");
    }

    #[test]
    fn the_answer_to_what_a_reset_of_the_peer_overtook_is_known_as_that() {
        let received =
            |state| ResetEvent { direction: Direction::Received, state: Some(state), ..event_at("10.0.0.2:4000", 0) };
        let answer = ResetEvent { reason: Some("NO_SOCKET".into()), ..event_at("10.0.0.2:4000", 50) };
        let again =
            |first: ResetEvent| Joiner::default().step(read(&[first, answer.clone()], &[]), END).resets[1].again;
        assert!(again(received(TcpState::Established)));
        assert!(!again(received(TcpState::SynSent)), "a refused connect was no connection");
        let other_end = ResetEvent { active: true, ..event_at("10.0.0.2:4000", 0) };
        let (local, peer) = (other_end.local, other_end.peer.unwrap());
        assert!(
            again(ResetEvent { local: peer, peer: Some(local), ..other_end }),
            "the abort of the other end, seen here"
        );
    }

    #[test]
    fn what_has_no_partner_stands_alone_in_order_of_time() {
        let events = [event_at("10.0.0.2:4000", 100), event_at("10.0.0.2:4001", 190_000)];
        let packets = [packet_at("10.0.0.3:4000", 50), packet_at("10.0.0.2:4001", 150)];
        let joined = Joiner::default().step(read(&events, &packets), END).resets;
        assert_eq!(shape(&joined), [(false, true), (true, false), (false, true), (true, false)], "190 ms too early");
    }

    #[test]
    fn a_listener_learns_its_peer_from_the_packet_that_nobody_else_claims() {
        let events = [event_at("", 0), event_at("10.0.0.2:4000", 1)];
        assert_eq!(events[0].peer, None);
        let packets = [packet_at("10.0.0.2:4000", 2), packet_at("10.0.0.9:4000", 3)];
        let joined = Joiner::default().step(read(&events, &packets), END).resets;
        assert_eq!(shape(&joined), [(true, true), (true, true)]);
        assert_eq!(joined[0].peer(), "10.0.0.9:4000".parse().ok());
    }

    #[test]
    fn a_connection_that_was_reset_is_found_among_the_destroyed_sockets() {
        let reset = ResetEvent { active: true, ..event_at("10.0.0.2:4000", 0) };
        let answer = event_at("10.0.0.2:4001", 0);
        let socket = |peer: &str, micros| DestroyedSocket {
            at: reset.at + Duration::from_micros(micros),
            ..destroyed("10.0.0.1:80", peer)
        };
        // An earlier connection with the same ends, the one that was reset, and one that a mere answer cannot have ended.
        let earlier = DestroyedSocket { at: reset.at - Duration::from_millis(1), ..socket("10.0.0.2:4000", 0) };
        let mut heard = read(&[reset.clone(), answer], &[]);
        heard.destroyed =
            [earlier, socket("10.0.0.2:4000", 900), socket("10.0.0.2:4001", 900)].map(|s| (NETNS, s)).into();
        let joined = Joiner::default().step(heard, END);
        let told: Vec<_> = joined.resets.iter().map(|reset| reset.ended.as_ref().map(|socket| socket.at)).collect();
        assert_eq!(told, [Some(reset.at + Duration::from_micros(900)), None]);
        assert_eq!(joined.endings.len(), 3);
    }

    #[test]
    fn a_socket_that_is_destroyed_long_after_its_reset_was_ended_by_it() {
        let mut joiner = Joiner::default();
        let state = Some(TcpState::Established);
        let reset = ResetEvent { old_state: state, ..event(Direction::Received, "10.0.0.1:80", "10.0.0.2:4000") };
        joiner.step(read(&[reset], &[]), Duration::from_secs(101));
        let closed = DestroyedSocket { at: Duration::from_secs(110), ..destroyed("10.0.0.1:80", "10.0.0.2:4000") };
        let other = destroyed("10.0.0.1:80", "10.0.0.2:4001");
        let other = DestroyedSocket { cookie: closed.cookie + 1, at: closed.at, ..other };
        let joined =
            joiner.step(Drained { destroyed: vec![(NETNS, closed), (NETNS, other)], ..Drained::default() }, END);
        assert_eq!(joined.endings.iter().map(|(_, ending)| ending.end).collect::<Vec<_>>(), [End::Reset, End::Other]);
    }

    /// What is remembered after a storm is of no use an hour later, and so is the room for it.
    #[test]
    fn an_hour_after_a_storm_nothing_of_it_is_held() {
        let mut joiner = Joiner::default();
        let storm: Vec<_> = (0..REMEMBERED as u64).map(|micros| event_at("10.0.0.2:4000", micros)).collect();
        let at = storm[0].at;
        joiner.step(read(&storm, &[]), at + Duration::from_secs(1));
        assert!(joiner.unseen.len() == REMEMBERED);
        joiner.step(Drained::default(), at + Duration::from_secs(3_600));
        assert!(joiner.unseen.is_empty() && joiner.unseen.capacity() < 2_000);
    }
}
