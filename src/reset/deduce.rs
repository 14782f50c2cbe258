//! The reason of a RST that TCP sent and for which the kernel gives none: before Linux 6.10 for all, and before 6.12 for those
//! that a socket sends by itself. From the call chain, the state of the socket, the form of the packet and what surrounds it.
//!
//! The functions and counters are those of net/ipv4/{tcp,tcp_timer,tcp_input,tcp_minisocks,tcp_ipv4}.c of Linux 5.10 and 6.1.

use super::{Alone, Answered, Mark, Moved, Reset, Surroundings};
use crate::source::reset_events::{Caller, Direction, ResetTally};
use crate::source::reset_packets::{PeerTtls, Signature};
use crate::value::TcpState;

const CLOSED_WITH_UNREAD: &str = "TCP_ABORT_ON_CLOSE";
const STATE: &str = "TCP_STATE";
const MEMORY: &str = "TCP_ABORT_ON_MEMORY";
const LINGER: &str = "TCP_ABORT_ON_LINGER";
const KEEPALIVE: &str = "TCP_KEEPALIVE_TIMEOUT";
const LATE_DATA: &str = "TCP_ABORT_ON_DATA";
const LATE_DATA_IN_TIME_WAIT: &str = "TCP_TIMEWAIT_SOCKET";
const INVALID_SYN: &str = "INVALID_SYN";
const NO_CONNECTION: &str = "TCP_FLAGS";

/// How the kind of a RST is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Told {
    /// The kernel gave its reason, or reported what it met.
    #[default]
    Stated,
    /// By its event: call chain, task, state of the socket.
    Chain,
    /// Only its packet was seen, an answer: by its form, the listeners, and what was closed before.
    Packet,
    /// Only its packet was seen, of a socket that left unread data, and a counter counted as many.
    Socket,
    /// By counters of the window, which do not tell one RST from another.
    Counters,
}

/// What the counters of a window tell of the RSTs by sockets of which nothing else tells the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aborts {
    /// TCPAbortOnClose counted as many as left data unread: an administrator who destroys a socket does not move it.
    unread: bool,
    /// The reason of the others: of the one counter that moved, and by as much.
    others: Option<&'static str>,
    /// No counter that goes with such a RST moved for the others: a listener that closes moves none.
    uncounted: bool,
}

impl Aborts {
    /// `resets`: all that this namespace sent.
    pub fn new(around: &Surroundings, resets: &[(Mark, ResetTally)]) -> Self {
        let mut counters = Counters::of(around.moved);
        let (mut unread, mut others) = (0, 0);
        for (mark, tally) in resets.iter().filter(|(_, tally)| tally.active && tally.direction == Direction::Sent) {
            match reason(around, tally, *mark) {
                _ if tally.stated().is_some() => {}
                Some(reason) if !is_left_to_counters(tally, *mark) => counters.take(reason, tally.count),
                _ if mark.left_unread => unread += tally.count,
                _ => others += tally.count,
            }
        }
        // Events, packets and counters do not begin and end at the same instant.
        let covers = |counted: u64, count: u64| counted.saturating_add(counted / 20) >= count;
        let all_unread = covers(counters.left(CLOSED_WITH_UNREAD), unread);
        if all_unread {
            counters.take(CLOSED_WITH_UNREAD, unread);
        } else {
            others += unread;
        }
        let moved: Vec<_> = counters.0.iter().filter(|(_, count)| *count > 0).collect();
        // What moved by more has counted something else as well: late data, or timers that send no RST.
        let as_many = |counted: u64| covers(counted, others) && covers(others, counted);
        let one = match moved.as_slice() {
            [(reason, count)] if as_many(*count) => Some(*reason),
            _ => None,
        };
        Self { unread: all_unread, others: one, uncounted: counters.known(around.moved) && moved.is_empty() }
    }
}

/// Counters that go with a RST by a socket, each with its reason.
struct Counters([(&'static str, u64); 5]);

impl Counters {
    fn of(moved: Moved) -> Self {
        let of = |count: Option<u64>| count.unwrap_or(0);
        Self([
            (CLOSED_WITH_UNREAD, of(moved.on_close)),
            // The same with SO_LINGER 0; data that meets a closed socket counts here, too.
            (STATE, of(moved.on_data)),
            (MEMORY, of(moved.on_memory)),
            (LINGER, of(moved.on_linger)),
            (KEEPALIVE, of(moved.on_timeout)),
        ])
    }

    fn left(&self, reason: &str) -> u64 {
        self.0.iter().find(|(of, _)| *of == reason).map_or(0, |(_, count)| *count)
    }

    /// Of the aborts by SO_LINGER 0 is not known how many have another reason without a counter.
    fn take(&mut self, reason: &str, by: u64) {
        let of = self.0.iter_mut().filter(|(of, _)| *of == reason && reason != STATE);
        of.for_each(|(_, count)| *count = count.saturating_sub(by));
    }

    fn known(&self, moved: Moved) -> bool {
        moved.on_close.is_some() && moved.on_data.is_some() && moved.on_timeout.is_some()
    }
}

/// How the kind of a RST that was sent is known.
pub(super) fn told(tally: &ResetTally, mark: Mark) -> Told {
    match tally.stated() {
        Some(_) => Told::Stated,
        None if !is_left_to_counters(tally, mark) && !mark.packet_alone => Told::Chain,
        None if tally.active && mark.left_unread => Told::Socket,
        None if tally.active => Told::Counters,
        None => Told::Packet,
    }
}

impl Surroundings {
    /// Why this host's TCP sent a RST, by the name in `enum sk_rst_reason` (include/net/rstreason.h): as the kernel states it, or as it
    /// is deduced. `None` where neither tells.
    pub fn reason<'a>(&self, tally: &'a ResetTally, mark: Mark) -> Option<&'a str> {
        tally.stated().or_else(|| reason(self, tally, mark))
    }

    /// This host's TCP sent it for one of these reasons; also where only its packet was seen, and nobody else can have sent that.
    pub fn is_sent_for(&self, reset: &Reset, ttls: &PeerTtls, reasons: &[&str]) -> bool {
        let event = match &reset.packet {
            Some(packet) if reset.event.is_none() => {
                let alone = !self.traced.sent && packet.local_here && packet.signature() == Signature::Answer;
                let of_tcp = alone && self.alone != Alone::Unclear && !self.is_rejected(packet);
                reset.packet_as_event().filter(|_| of_tcp)
            }
            _ => reset.located_event().filter(|event| event.direction == Direction::Sent),
        };
        let tally = event.map(|event| ResetTally::of(&event, self.ephemeral));
        let reason = tally.as_ref().and_then(|tally| self.reason(tally, Mark::of(reset, ttls)));
        reason.is_some_and(|reason| reasons.contains(&reason))
    }
}

/// The reason by its name in `enum sk_rst_reason`; `None` where that cannot be told.
fn reason(around: &Surroundings, tally: &ResetTally, mark: Mark) -> Option<&'static str> {
    match (is_left_to_counters(tally, mark), tally.active) {
        (true, _) => by_counters(around, tally, mark),
        (false, true) => active(around, tally),
        (false, false) if mark.packet_alone => answer_by_packet(around, tally, mark),
        (false, false) => answer(around, tally, mark),
    }
}

/// A RST by a socket of which neither call chain nor state is known, or the state after it was left.
fn is_left_to_counters(tally: &ResetTally, mark: Mark) -> bool {
    let no_chain = tally.caller.is_none() && tally.state == Some(TcpState::Close);
    tally.active && (mark.packet_alone || no_chain)
}

/// tcp_send_active_reset() and what calls it.
fn active(around: &Surroundings, tally: &ResetTally) -> Option<&'static str> {
    match tally.caller {
        Some(Caller::Close) => Some(close(around, tally)),
        Some(Caller::Linger | Caller::Disconnect | Caller::Destroy | Caller::ListenerStop | Caller::Mptcp) => {
            Some(STATE)
        }
        // The timer also ends FIN_WAIT2, at once where TCP_LINGER2 is negative.
        Some(Caller::KeepaliveTimer) if tally.state == Some(TcpState::FinWait2) => Some(LINGER),
        Some(Caller::KeepaliveTimer) => Some(KEEPALIVE),
        Some(Caller::WriteTimer) => Some(MEMORY),
        Some(Caller::CheckRequest) => None,
        None => match tally.state {
            // Timers and tcp_abort() send before the state is left, all others after that.
            Some(TcpState::Established | TcpState::CloseWait) if tally.softirq => Some(KEEPALIVE),
            Some(TcpState::Established | TcpState::CloseWait) => Some(STATE),
            Some(_) if tally.softirq => Some(MEMORY),
            _ => None,
        },
    }
}

/// __tcp_close() itself: unread data first, whatever the state; then TCP_LINGER2 and want of memory, both after the FIN.
fn close(around: &Surroundings, tally: &ResetTally) -> &'static str {
    match tally.old_state {
        Some(TcpState::Established | TcpState::CloseWait | TcpState::SynRecv) => CLOSED_WITH_UNREAD,
        _ if around.moved.on_memory > Some(0) => MEMORY,
        // FIN_WAIT2 is not watched.
        None if around.moved.on_linger > Some(0) => LINGER,
        _ => CLOSED_WITH_UNREAD,
    }
}

fn by_counters(around: &Surroundings, tally: &ResetTally, mark: Mark) -> Option<&'static str> {
    let aborts = around.aborts;
    if mark.left_unread && aborts.unread {
        return Some(CLOSED_WITH_UNREAD);
    }
    let taken_along = aborts.uncounted && around.gone_ports.contains(&tally.local_port.unwrap_or(0));
    aborts.others.or(taken_along.then_some(STATE))
}

/// An answer by a full socket: only of those there is an event without a reason.
fn answer(around: &Surroundings, tally: &ResetTally, mark: Mark) -> Option<&'static str> {
    Some(match tally.state? {
        _ if tally.caller == Some(Caller::CheckRequest) => INVALID_SYN,
        TcpState::Listen | TcpState::NewSynRecv => match mark.answered {
            Some(Answered::Syn) => INVALID_SYN,
            // Where the call chain is hidden: tcp_check_req() counts, and answers a full queue only if told to.
            _ if tally.caller.is_none() && around.moved.embryonic > Some(0) && around.resets_on_overflow => INVALID_SYN,
            _ => NO_CONNECTION,
        },
        TcpState::SynSent if around.moved.paws_active > Some(0) => "TCP_RFC7323_PAWS",
        TcpState::SynSent | TcpState::SynRecv => "TCP_INVALID_ACK_SEQUENCE",
        TcpState::TimeWait => LATE_DATA_IN_TIME_WAIT,
        // tcp_reset() has closed the socket by then.
        TcpState::Close | TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck => LATE_DATA,
        TcpState::Established | TcpState::CloseWait => return None,
    })
}

/// An answer of which no event tells: nobody's, or by what is left of a connection in TIME_WAIT.
fn answer_by_packet(around: &Surroundings, tally: &ResetTally, mark: Mark) -> Option<&'static str> {
    let port = tally.local_port.unwrap_or(0);
    let bound = around.listening.get(&port).map_or(&[][..], Vec::as_slice);
    let listens = bound.iter().any(|bound| tally.local_addr.is_some_and(|local| bound.covers(local)));
    match mark.answered? {
        Answered::Syn => Some("NO_SOCKET"),
        Answered::Segment if mark.again => Some("NO_SOCKET"),
        // What has no place in TIME_WAIT is forgotten at once.
        Answered::Segment if mark.closed && around.moved.time_wait_overflow.unwrap_or(0) == 0 => {
            Some(LATE_DATA_IN_TIME_WAIT)
        }
        // The listener would have answered, and its answer has an event.
        Answered::Segment if listens && around.traced.full_sockets && !around.gone_ports.contains(&port) => {
            Some(LATE_DATA_IN_TIME_WAIT)
        }
        // It may be of one that was closed here a moment ago.
        Answered::Segment if !around.closes_known => None,
        Answered::Segment if listens => Some(NO_CONNECTION),
        Answered::Segment => Some("NO_SOCKET"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{destroyed, event, packet};
    use super::super::{Kind, Traced};
    use super::*;
    use crate::source::destroyed_sockets::DestroyedSocket;
    use crate::source::listeners::Bound;
    use crate::source::reset_events::{Direction, ResetEvent, Task};
    use crate::source::reset_packets::ResetPacket;

    const ENDS: (&str, &str) = ("10.0.0.1:80", "10.0.0.2:40000");

    fn around() -> Surroundings {
        Surroundings { traced: Traced { sent: false, ..Traced::ALL }, ..Surroundings::default() }
    }

    fn kind(around: &Surroundings, event: ResetEvent) -> Kind {
        around.kind(&Reset { event: Some(event), ..Reset::default() }, &PeerTtls::default())
    }

    fn active(caller: Option<Caller>, old_state: Option<TcpState>) -> ResetEvent {
        let task = Some(Task { pid: 7, name: "server".to_owned() });
        let base = event(Direction::Sent, ENDS.0, ENDS.1);
        ResetEvent { active: true, softirq: false, state: Some(TcpState::Close), task, caller, old_state, ..base }
    }

    #[test]
    fn the_call_chain_of_an_abort_tells_what_it_was() {
        let of = |caller| kind(&around(), active(Some(caller), Some(TcpState::Established)));
        assert_eq!(of(Caller::Close), Kind::UnreadData);
        assert_eq!(of(Caller::Linger), Kind::Aborted);
        assert_eq!(of(Caller::Disconnect), Kind::Aborted);
        assert_eq!(of(Caller::ListenerStop), Kind::ListenerClosed);
        assert_eq!(of(Caller::Destroy), Kind::Destroyed);
        assert_eq!(of(Caller::KeepaliveTimer), Kind::Keepalive);
        assert_eq!(of(Caller::WriteTimer), Kind::Memory);
        assert_eq!(kind(&around(), ResetEvent { exiting: true, ..active(Some(Caller::Close), None) }), Kind::Exited);
    }

    #[test]
    fn a_close_after_its_fin_aborts_for_memory_where_that_counter_moved() {
        let close = || active(Some(Caller::Close), Some(TcpState::FinWait1));
        assert_eq!(kind(&around(), close()), Kind::UnreadData);
        let moved = Moved { on_memory: Some(60), ..Moved::default() };
        assert_eq!(kind(&Surroundings { moved, ..around() }, close()), Kind::Memory);
        let unread = active(Some(Caller::Close), Some(TcpState::Established));
        assert_eq!(kind(&Surroundings { moved, ..around() }, unread), Kind::UnreadData);
    }

    #[test]
    fn a_reason_that_is_not_specified_is_none() {
        let event = ResetEvent { reason: Some("NOT_SPECIFIED".into()), ..active(Some(Caller::Close), None) };
        assert_eq!(kind(&around(), event), Kind::UnreadData);
    }

    /// As if these were all that the window had.
    fn counted(around: Surroundings, resets: &[Reset]) -> Surroundings {
        let of = |reset: &Reset| {
            let event = reset.event.clone().or_else(|| reset.packet_as_event()).expect("an end that is known");
            (Mark::of(reset, &PeerTtls::default()), ResetTally::of(&event, around.ephemeral))
        };
        let all: Vec<_> = resets.iter().map(of).collect();
        Surroundings { aborts: Aborts::new(&around, &all), ..around }
    }

    #[test]
    fn without_symbols_state_and_counters_tell_as_much_as_they_can() {
        let open = |softirq| ResetEvent { state: Some(TcpState::Established), softirq, ..active(None, None) };
        assert_eq!(kind(&around(), open(true)), Kind::Keepalive);
        assert_eq!(kind(&around(), open(false)), Kind::Destroyed);
        let closed = |moved| {
            let reset = Reset { event: Some(active(None, Some(TcpState::Established))), ..Reset::default() };
            let around = counted(Surroundings { moved, ..around() }, std::slice::from_ref(&reset));
            around.kind(&reset, &PeerTtls::default())
        };
        let both = Moved { on_close: Some(1), on_data: Some(1), ..Moved::default() };
        assert_eq!(closed(both), Kind::Active, "one of two");
        assert_eq!(closed(Moved { on_data: Some(0), ..both }), Kind::UnreadData);
        assert_eq!(closed(Moved { on_close: Some(0), ..both }), Kind::Aborted);
    }

    #[test]
    fn an_answer_is_told_by_the_state_of_its_socket_and_the_form_of_its_packet() {
        let by = |state, caller| {
            let event = ResetEvent { state: Some(state), caller, ..event(Direction::Sent, ENDS.0, ENDS.1) };
            kind(&around(), event)
        };
        assert_eq!(by(TcpState::Listen, None), Kind::Stale);
        assert_eq!(by(TcpState::Listen, Some(Caller::CheckRequest)), Kind::HandshakeRestarted);
        assert_eq!(by(TcpState::SynSent, None), Kind::Stale);
        assert_eq!(by(TcpState::Close, None), Kind::LateData);
        assert_eq!(by(TcpState::Established, None), Kind::Other, "no kernel is known to do so");
    }

    fn by_packet(around: &Surroundings, packet: &ResetPacket, closed: bool) -> Kind {
        let reset = Reset { packet: Some(packet.clone()), closed, ..Reset::default() };
        let around = Surroundings { closes_known: true, ..around.clone() };
        around.kind(&reset, &PeerTtls::default())
    }

    #[test]
    fn a_packet_without_event_is_told_by_its_form_the_listeners_and_what_was_closed_before() {
        let to_syn = packet(Direction::Sent, ENDS.0, ENDS.1);
        let to_data = ResetPacket { flags: 0x04, seq: 7, ack: 0, ..to_syn.clone() };
        assert_eq!(by_packet(&around(), &to_syn, false), Kind::Refused);
        assert_eq!(by_packet(&around(), &to_data, false), Kind::Stale);
        assert_eq!(by_packet(&around(), &to_data, true), Kind::LateData);
        let bound = |address: &str| Bound::from(address.parse::<std::net::IpAddr>().expect("address"));
        let all = bound("0.0.0.0");
        let listening = Surroundings { listening: [(80, vec![all])].into(), ..around() };
        assert_eq!(by_packet(&listening, &to_syn, false), Kind::FirewallReject, "a listener refuses nobody");
        assert_eq!(by_packet(&listening, &to_data, false), Kind::LateData, "its own answer has an event");
        let alone = Surroundings { traced: Traced::NONE, ..listening.clone() };
        assert_eq!(by_packet(&alone, &to_data, false), Kind::Stale);
        let gone = Surroundings { gone_ports: [80].into(), ..listening.clone() };
        assert_eq!(by_packet(&gone, &to_data, false), Kind::Stale, "nobody was left to answer with an event");
        let unheard = Reset { packet: Some(to_data.clone()), ..Reset::default() };
        assert_eq!(
            around().kind(&unheard, &PeerTtls::default()),
            Kind::Answer,
            "of one that was closed here, or of none"
        );
        let elsewhere = bound("127.0.0.1");
        let other = Surroundings { listening: [(80, vec![elsewhere])].into(), ..around() };
        assert_eq!(by_packet(&other, &to_syn, false), Kind::RefusedAddress);
    }

    #[test]
    fn an_abort_of_which_only_the_packet_was_seen_is_told_by_what_its_socket_left() {
        let abort = ResetPacket { window: 500, seq: 5, ..packet(Direction::Sent, ENDS.0, ENDS.1) };
        let left = |unread| Reset {
            packet: Some(abort.clone()),
            ended: Some(Box::new(DestroyedSocket { unread, ..destroyed(ENDS.0, ENDS.1) })),
            ..Reset::default()
        };
        let of = |resets: &[Reset], moved| {
            let around = Surroundings { traced: Traced::NONE, moved, ..Surroundings::default() };
            let around = counted(around, resets);
            resets.iter().map(|reset| around.kind(reset, &PeerTtls::default())).collect::<Vec<_>>()
        };
        let none = Moved { on_close: Some(0), on_data: Some(0), on_timeout: Some(0), ..Moved::default() };
        let one = Moved { on_close: Some(1), ..none };
        assert_eq!(of(&[left(900)], one), [Kind::UnreadData]);
        assert_eq!(of(&[left(900)], none), [Kind::Active], "an administrator destroyed it: nothing counts that");
        assert_eq!(of(&[left(900), left(900)], one), [Kind::Active; 2], "one of the two, and nobody can say which");
        let linger = Moved { on_data: Some(1), ..none };
        assert_eq!(of(&[left(0)], linger), [Kind::Aborted]);
        let late_data = Moved { on_data: Some(9), ..none };
        assert_eq!(of(&[left(0)], late_data), [Kind::Active], "the counter counts late data as well");
        assert_eq!(of(&[left(0), left(0), left(0)], linger), [Kind::Active; 3], "one counter does not speak for all");
        assert_eq!(of(&[left(0)], Moved { on_timeout: Some(1), ..linger }), [Kind::Active], "of two counters");
        let both = Moved { on_data: Some(1), ..one };
        assert_eq!(of(&[left(900), left(0)], both), [Kind::UnreadData, Kind::Aborted]);
        let traced = Reset { packet: Some(abort), ..Reset::default() };
        assert_eq!(around().kind(&traced, &PeerTtls::default()), Kind::NotByTcp, "a socket's own has an event");
    }
}
