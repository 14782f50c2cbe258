//! What one reset was: the one place where a kernel reason, a call chain, a socket state, the form of a packet and what is known
//! of the surroundings become a kind.
//!
//! The reasons are those of `enum sk_rst_reason` (include/net/rstreason.h, 6.10; active resets 6.12), each provoked and
//! seen on Linux 6.18.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::deduce::{self, Aborts, Told};
use super::exchange::Exchange;
use super::{Answered, Kind, Mark, Origin, Reset};
use crate::source::listeners::Bound;
use crate::source::reset_events::{Caller, Direction, Missing, ResetTally};
use crate::source::reset_packets::{PeerTtls, ResetPacket, Signature};
use crate::value::{EphemeralPorts, TcpState};

/// A process that ends closes its sockets one after the other.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What must have left an event if TCP was behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Every RST that TCP sends: Linux 6.10 and later. Before, answers without a full socket left no event.
    pub sent: bool,
    /// Those that a full socket sends: all but answers by nobody, and in TIME_WAIT.
    pub full_sockets: bool,
    pub received: bool,
    /// State changes are watched.
    pub states: bool,
}

impl Traced {
    /// By a kernel of this release (as in /proc/sys/kernel/osrelease), with what its tracepoints lack. Unless it is `certain`
    /// that no event was lost, the absence of one proves nothing.
    pub fn new(kernel: &str, missing: &[Missing], certain: bool) -> Self {
        let lacks = |name: &str| missing.iter().any(|missing| missing.name == name);
        let full_sockets = certain && !lacks("tcp/tcp_send_reset");
        Self {
            sent: full_sockets && at_least(kernel, (6, 10)),
            full_sockets,
            received: certain && !lacks("tcp/tcp_receive_reset"),
            states: !lacks("sock/inet_sock_set_state"),
        }
    }

    pub const ALL: Self = Self { sent: true, full_sockets: true, received: true, states: true };
    pub const NONE: Self = Self { sent: false, full_sockets: false, received: false, states: false };
}

/// Whether a kernel release, `6.18.5-generic`, is this version or later.
fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= wanted)
}

/// Whose the answers are of which only the packet was seen, where TCP sends some without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alone {
    /// Nobody counted: netfilter's are those to a SYN for which something listens, because a listener refuses nobody.
    #[default]
    NotCounted,
    /// TCP counted as many more RSTs as there are.
    Tcp,
    /// TCP counted none of them.
    Netfilter,
    /// TCP counted some, and it cannot be told which.
    Unclear,
}

/// By how much counters moved in the window, where they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// TcpExt.TCPAbortOnClose, TCPAbortOnData, TCPAbortOnMemory, TCPAbortOnLinger, TCPAbortOnTimeout.
    pub on_close: Option<u64>,
    pub on_data: Option<u64>,
    pub on_memory: Option<u64>,
    pub on_linger: Option<u64>,
    pub on_timeout: Option<u64>,
    /// TcpExt.EmbryonicRsts.
    pub embryonic: Option<u64>,
    /// TcpExt.PAWSActive.
    pub paws_active: Option<u64>,
    /// TcpExt.TCPTimeWaitOverflow.
    pub time_wait_overflow: Option<u64>,
    /// TcpExt.ListenOverflows.
    pub listen_overflows: Option<u64>,
    /// TcpExt.SyncookiesFailed.
    pub cookies_failed: Option<u64>,
}

/// What surrounds a reset: who listens where, which listeners went away, who scans and who probes. It decides the kind of a
/// reset that its reason alone leaves open; what is not known of it is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Local ports of outgoing connections.
    pub ephemeral: EphemeralPorts,
    pub traced: Traced,
    /// Ports that somebody listened on at any time of the window, with the addresses, for what comes in by any device.
    pub listening: BTreeMap<u16, Vec<Bound>>,
    /// Ports that somebody listened on for what comes in by one device (SO_BINDTODEVICE, a VRF): what comes in by another meets
    /// no socket (net/ipv4/inet_hashtables.c compute_score), and nothing tells by which it came.
    pub device_ports: BTreeSet<u16>,
    /// Ports whose listener went away.
    pub gone_ports: BTreeSet<u16>,
    /// Local ports whose process died in the window: what it left behind is its death's, not a close's.
    /// Since when, CLOCK_BOOTTIME; zero where that is not known.
    pub dead_ports: BTreeMap<u16, Duration>,
    /// Processes that are gone since the window began.
    pub gone_processes: BTreeSet<u32>,
    /// An accept queue of this port was full.
    pub full_ports: BTreeSet<u16>,
    /// Sources that tried many closed ports, and these ports.
    pub scanned: BTreeMap<IpAddr, BTreeSet<u16>>,
    /// Peers that reset their connections to a listener's port as regularly as a clock.
    pub probers: BTreeSet<(IpAddr, u16)>,
    pub moved: Moved,
    /// net.ipv4.tcp_abort_on_overflow.
    pub resets_on_overflow: bool,
    pub alone: Alone,
    /// Connections that are closed are seen, so that what comes for them afterwards is known.
    pub closes_known: bool,
    /// Ports that a SYN asked for in vain; `None` where no packet of an answer was seen, as without CAP_NET_RAW.
    pub asked_in_vain: Option<BTreeSet<u16>>,
    /// What nearly all closes with unread data at this port were: so were the few whose socket was not seen to be destroyed.
    pub usual_close: BTreeMap<u16, Exchange>,
    pub aborts: Aborts,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            ephemeral: EphemeralPorts::default(),
            traced: Traced::NONE,
            listening: BTreeMap::new(),
            device_ports: BTreeSet::new(),
            gone_ports: BTreeSet::new(),
            dead_ports: BTreeMap::new(),
            gone_processes: BTreeSet::new(),
            full_ports: BTreeSet::new(),
            scanned: BTreeMap::new(),
            probers: BTreeSet::new(),
            moved: Moved::default(),
            resets_on_overflow: false,
            alone: Alone::default(),
            closes_known: false,
            asked_in_vain: None,
            usual_close: BTreeMap::new(),
            aborts: Aborts::default(),
        }
    }
}

impl Surroundings {
    /// What one reset was. `ttls`: with which TTL the peers' other packets arrive.
    pub fn kind(&self, reset: &Reset, ttls: &PeerTtls) -> Kind {
        match (&reset.event, &reset.packet) {
            (None, Some(packet)) => self.kind_of_packet(reset, packet, ttls),
            _ => reset.located_event().map_or(Kind::Other, |event| {
                let tally = ResetTally::of(&event, self.ephemeral);
                self.kind_of_event(&tally, Mark::of(reset, ttls))
            }),
        }
    }

    /// What a RST was of which only the packet was seen.
    fn kind_of_packet(&self, reset: &Reset, packet: &ResetPacket, ttls: &PeerTtls) -> Kind {
        if packet.came_back() {
            return Kind::FirewallReject;
        }
        match (packet.direction, packet.signature()) {
            (Direction::Sent, Signature::Answer) if self.traced.sent => Kind::FirewallReject,
            (Direction::Sent, _) if self.traced.sent => Kind::NotByTcp,
            // A socket's own RST has had an event since the tracepoint is there (Linux 4.16).
            (Direction::Sent, Signature::Active) if self.traced.full_sockets => Kind::NotByTcp,
            (Direction::Sent, Signature::Foreign) => Kind::NotByTcp,
            (Direction::Sent, Signature::Answer) if self.is_rejected(packet) => Kind::FirewallReject,
            (Direction::Sent, Signature::Answer) if self.alone == Alone::Unclear => {
                Answered::by(packet).map_or(Kind::Answer, Kind::of_answer)
            }
            (Direction::Sent, Signature::Active | Signature::Answer) => {
                let tally = reset.packet_as_event().map(|event| ResetTally::of(&event, self.ephemeral));
                tally.map_or(Kind::Other, |tally| self.kind_of_event(&tally, Mark::of(reset, ttls)))
            }
            (Direction::Received, _) if self.traced.received => Kind::Ignored,
            (Direction::Received, _) => Kind::FromPeer,
        }
    }

    /// Netfilter sent this answer, of which only the packet was seen, by a kernel that reports not all that TCP sends.
    pub fn is_rejected(&self, packet: &ResetPacket) -> bool {
        let refused_by_listener = || {
            let bound = self.listening.get(&packet.local.port()).map_or(&[][..], Vec::as_slice);
            Answered::by(packet) == Some(Answered::Syn) && bound.iter().any(|bound| bound.covers(packet.local.ip()))
        };
        match self.alone {
            Alone::Netfilter => true,
            Alone::Tcp => false,
            Alone::NotCounted | Alone::Unclear => refused_by_listener(),
        }
    }

    /// How [`Self::kind_of_event`] knows.
    pub fn told(&self, tally: &ResetTally, mark: Mark, kind: Kind) -> Told {
        match tally.direction {
            // All that is said of it is that a socket sent it.
            Direction::Sent if kind == Kind::Active => Told::Packet,
            Direction::Sent => deduce::told(tally, mark),
            // The event itself is the proof, except of who sent it.
            Direction::Received if kind == Kind::Forged => Told::Packet,
            Direction::Received => Told::Stated,
        }
    }

    /// What resets were that TCP sent, or that have an event.
    pub fn kind_of_event(&self, tally: &ResetTally, mark: Mark) -> Kind {
        let kind = match tally.direction {
            Direction::Sent => self.sent(tally, mark),
            Direction::Received => self.received(tally, mark),
        };
        let usual = || match kind {
            Kind::UnreadData if !mark.left_unread => self.usual_close.get(&tally.local_port?).copied(),
            _ => None,
        };
        match mark.exchange.or_else(usual) {
            // An answer by what is left of a connection looks like a server's, whoever had made that.
            Some(exchange) if tally.peer_port.is_some() || self.is_rest_of_own(tally) => kind.of_caller(exchange),
            Some(exchange) => kind.of_server(exchange),
            None => kind,
        }
    }

    fn received(&self, tally: &ResetTally, mark: Mark) -> Kind {
        if mark.origin == Origin::Firewall {
            return Kind::FirewallReject;
        }
        let own = |peer: IpAddr| peer.is_loopback() || Some(peer) == tally.local_addr;
        match tally.state_before() {
            Some(TcpState::SynSent) => Kind::UpstreamRefused,
            Some(
                TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck | TcpState::TimeWait,
            ) => Kind::AfterClose,
            _ if mark.origin == Origin::Device => Kind::Forged,
            // Loopback, or an address called from itself: the other end of a RST that this host sent and counts there.
            _ if tally.peer_addr.is_some_and(own) => Kind::OtherEnd,
            // Of a connection's states only FIN_WAIT2 and LAST_ACK are not watched, see `ResetEvent::state`.
            None if self.traced.states => Kind::AfterClose,
            // Where this side called, it is a request that met a server's close: a lost request.
            Some(TcpState::CloseWait) if tally.peer_port.is_none() => Kind::ClientGone,
            _ => match (tally.peer_addr, tally.local_port) {
                (Some(peer), Some(port)) if self.probers.contains(&(peer, port)) => Kind::HealthCheck,
                _ => Kind::PeerReset,
            },
        }
    }

    fn sent(&self, tally: &ResetTally, mark: Mark) -> Kind {
        let Some(reason) = self.reason(tally, mark) else {
            return match mark.answered {
                _ if tally.active => Kind::Active,
                Some(answered) if mark.packet_alone => Kind::of_answer(answered),
                _ => Kind::Other,
            };
        };
        let exited = |kind| if self.exited(tally, mark) { Kind::Exited } else { kind };
        let port = tally.local_port.unwrap_or(0);
        let usual = Kind::of_reason(reason).first().copied().unwrap_or(Kind::Other);
        match reason {
            "TCP_ABORT_ON_CLOSE" => exited(usual),
            "TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET" if self.was_dead(port, tally) => Kind::Exited,
            // Only tcp_abort() sends before it leaves the state (net/ipv4/tcp.c); a listener that closes takes its queue
            // along; what remains is linger 0 or connect(AF_UNSPEC).
            "TCP_STATE" => match tally.caller {
                Some(Caller::ListenerStop) => Kind::ListenerClosed,
                Some(Caller::Destroy) => Kind::Destroyed,
                Some(Caller::Mptcp) => Kind::Mptcp,
                Some(_) => exited(usual),
                // Without kernel symbols the socket tells.
                None => match tally.state {
                    Some(TcpState::Established | TcpState::CloseWait) if !tally.softirq => Kind::Destroyed,
                    _ if self.gone_ports.contains(&port) => Kind::ListenerClosed,
                    _ => exited(usual),
                },
            },
            "NO_SOCKET" => self.no_socket(tally, mark),
            // A segment with ACK met the listener: five histories end here, told apart by what else happened.
            "TCP_FLAGS" if self.full_ports.contains(&port) && self.moved.listen_overflows > Some(0) => {
                Kind::AcceptQueueExpired
            }
            "TCP_FLAGS" if self.moved.cookies_failed > Some(0) => Kind::Cookie,
            // A connection that was just reset, at a port with a listener.
            "TCP_FLAGS" if mark.again => Kind::Repeated,
            "INVALID_SYN" if self.moved.listen_overflows > Some(0) => Kind::AcceptQueueFull,
            _ => usual,
        }
    }

    /// A call chain that is known decides: that its process ended later does not make an ordinary close an exit.
    fn exited(&self, tally: &ResetTally, mark: Mark) -> bool {
        match tally.caller {
            Some(_) => tally.exiting,
            None if mark.packet_alone => tally.local_port.is_some_and(|port| self.was_dead(port, tally)),
            None => tally.exiting || tally.task.as_ref().is_some_and(|task| self.gone_processes.contains(&task.pid)),
        }
    }

    /// The process behind the port was dead when the first of these came: what it answered while it lived, it answered itself.
    fn was_dead(&self, port: u16, tally: &ResetTally) -> bool {
        self.dead_ports.get(&port).is_some_and(|since| tally.first + AT_ONCE >= *since)
    }

    fn no_socket(&self, tally: &ResetTally, mark: Mark) -> Kind {
        if mark.again {
            return Kind::Repeated;
        }
        if mark.answered == Some(Answered::Segment) {
            return Kind::Stale;
        }
        let port = tally.local_port.unwrap_or(0);
        let scanned = tally.peer_addr.and_then(|peer| self.scanned.get(&peer));
        if scanned.is_some_and(|ports| ports.contains(&port)) {
            return Kind::Scanned;
        }
        let listening = self.listening.get(&port).map_or(&[][..], Vec::as_slice);
        let takes = listening.iter().any(|bound| tally.local_addr.is_some_and(|local| bound.covers(local)));
        let elsewhere = self.listens(port);
        let to_a_syn = mark.answered == Some(Answered::Syn);
        let asked = || self.asked_in_vain.as_ref().is_none_or(|ports| ports.contains(&port));
        if to_a_syn && (!elsewhere || takes) || self.gone_ports.contains(&port) {
            Kind::Refused
        } else if takes {
            Kind::Stale
        // Its packet was lost, and nothing else says what it answered.
        } else if mark.answered.is_none() && !asked() {
            Kind::Answer
        } else if elsewhere {
            Kind::RefusedAddress
        // Nobody connects to an ephemeral port from a service port: it is the rest of a connection of ours.
        } else if self.is_rest_of_own(tally) {
            Kind::Stale
        } else {
            Kind::Refused
        }
    }

    fn listens(&self, port: u16) -> bool {
        self.listening.contains_key(&port) || self.device_ports.contains(&port)
    }

    /// From one of our ephemeral ports to a service port: this side had opened that connection.
    pub fn is_rest_of_own(&self, tally: &ResetTally) -> bool {
        let (Some(local), Some(peer)) = (tally.local_port, tally.peer_sample) else { return false };
        peer.port() != 0 && self.ephemeral.is_caller(local, peer.port()) && !self.listens(local)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, packet};
    use super::*;
    use crate::source::reset_events::{ResetEvent, Task};

    const ENDS: (&str, &str) = ("10.0.0.1:80", "10.0.0.2:40000");

    fn of_reason(reason: &str) -> ResetEvent {
        ResetEvent { reason: Some(reason.to_owned()), ..event(Direction::Sent, ENDS.0, ENDS.1) }
    }

    fn kind_in(around: &Surroundings, event: Option<&ResetEvent>, packet: Option<&ResetPacket>) -> Kind {
        let reset = Reset { event: event.cloned(), packet: packet.cloned(), ..Reset::default() };
        around.kind(&reset, &PeerTtls::default())
    }

    fn kind(event: Option<&ResetEvent>, packet: Option<&ResetPacket>, traced: Traced) -> Kind {
        kind_in(&Surroundings { traced, ..Surroundings::default() }, event, packet)
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(at_least("6.18.5", (6, 10)) && at_least("6.10.0-rc1", (6, 10)) && at_least("7.0", (6, 10)));
        assert!(!at_least("6.9.12-generic", (6, 10)) && !at_least("5.15", (6, 10)) && !at_least("", (6, 10)));
    }

    #[test]
    fn an_answer_to_a_syn_is_a_refusal_and_to_data_a_stale_connection() {
        let refused = of_reason("NO_SOCKET");
        let to_syn = packet(Direction::Sent, ENDS.0, ENDS.1);
        let to_data = ResetPacket { flags: 0x04, seq: 7, ack: 0, ..to_syn.clone() };
        let of = |packet| kind(Some(&refused), packet, Traced::ALL);
        assert_eq!(of(Some(&to_syn)), Kind::Refused);
        assert_eq!(of(Some(&to_data)), Kind::Stale);
        assert_eq!(of(None), Kind::Refused);
    }

    /// An overloaded host loses packets and socket records: what the others show is not turned into a refusal or a fault.
    #[test]
    fn what_was_lost_of_a_reset_is_as_the_others_show() {
        let stray = of_reason("NO_SOCKET");
        let asked = |ports: &[u16]| {
            let asked_in_vain = Some(ports.iter().copied().collect());
            kind_in(&Surroundings { asked_in_vain, ..Surroundings::default() }, Some(&stray), None)
        };
        assert_eq!((asked(&[]), asked(&[443]), asked(&[80])), (Kind::Answer, Kind::Answer, Kind::Refused));
        let closed = of_reason("TCP_ABORT_ON_CLOSE");
        let usual = |port| {
            let usual_close = [(port, Exchange::Goodbye)].into();
            kind_in(&Surroundings { usual_close, ..Surroundings::default() }, Some(&closed), None)
        };
        assert_eq!((usual(80), usual(443)), (Kind::Goodbye, Kind::UnreadData));
    }

    #[test]
    fn the_caller_tells_the_resets_of_one_reason_apart() {
        let by =
            |caller, exiting| kind(Some(&ResetEvent { caller, exiting, ..of_reason("TCP_STATE") }), None, Traced::ALL);
        assert_eq!(by(Some(Caller::ListenerStop), false), Kind::ListenerClosed);
        assert_eq!(by(Some(Caller::Destroy), false), Kind::Destroyed);
        assert_eq!(by(Some(Caller::Close), false), Kind::Aborted);
        assert_eq!(by(Some(Caller::Close), true), Kind::Exited);
    }

    #[test]
    fn an_ordinary_close_is_no_exit_because_its_process_ended_later() {
        let gone = Surroundings { gone_processes: [7].into(), ..Surroundings::default() };
        let task = Some(Task { pid: 7, name: "server".to_owned() });
        let close = |caller| ResetEvent { caller, task: task.clone(), ..of_reason("TCP_ABORT_ON_CLOSE") };
        assert_eq!(kind_in(&gone, Some(&close(Some(Caller::Close))), None), Kind::UnreadData);
        assert_eq!(kind_in(&gone, Some(&close(None)), None), Kind::Exited, "no symbols: the end is all that is known");
    }

    #[test]
    fn what_a_server_answered_while_it_lived_is_not_left_by_its_death() {
        let late = of_reason("TCP_ABORT_ON_DATA");
        let died = |seconds| {
            let dead_ports = [(80, late.at + Duration::from_secs(seconds))].into();
            kind_in(&Surroundings { dead_ports, ..Surroundings::default() }, Some(&late), None)
        };
        assert_eq!(died(2), Kind::LateData);
        assert_eq!(died(0), Kind::Exited);
    }

    #[test]
    fn a_packet_without_event_accuses_the_firewall_only_where_an_event_must_have_come() {
        let answer = packet(Direction::Sent, ENDS.0, ENDS.1);
        let of = |packet: &ResetPacket, traced| kind(None, Some(packet), traced);
        assert_eq!(of(&answer, Traced::ALL), Kind::FirewallReject);
        assert_eq!(of(&answer, Traced::NONE), Kind::Refused);
        let unclear = Surroundings { alone: Alone::Unclear, ..Surroundings::default() };
        assert_eq!(kind_in(&unclear, None, Some(&answer)), Kind::Refusal);
        let netfilter = Surroundings { alone: Alone::Netfilter, ..Surroundings::default() };
        assert_eq!(kind_in(&netfilter, None, Some(&answer)), Kind::FirewallReject);
        let active = ResetPacket { window: 500, seq: 5, ..answer };
        assert_eq!(of(&active, Traced::ALL), Kind::NotByTcp);
        assert_eq!(of(&active, Traced::NONE), Kind::Active);
        let received = packet(Direction::Received, ENDS.0, ENDS.1);
        assert_eq!(of(&received, Traced::ALL), Kind::Ignored);
        assert_eq!(of(&received, Traced::NONE), Kind::FromPeer);
    }

    #[test]
    fn a_received_reset_is_told_by_the_state_it_met() {
        let met = |old_state| {
            let event = ResetEvent { old_state, ..event(Direction::Received, ENDS.0, ENDS.1) };
            kind(Some(&event), None, Traced::ALL)
        };
        assert_eq!(met(Some(TcpState::SynSent)), Kind::UpstreamRefused);
        assert_eq!(met(Some(TcpState::Established)), Kind::PeerReset);
        assert_eq!(met(None), Kind::AfterClose);
    }
}
