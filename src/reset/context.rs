//! What surrounds a reset: who listens where, which listeners went away, who scans and who probes. It decides the kind of
//! a reset that its reason alone leaves open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::wire::{Answered, Mark, Origin};
use super::{GoneProcesses, Kind, SCAN_PORTS, gone_listeners};
use crate::observation::delta;
use crate::observation::{ListenerTrace, Observation};
use crate::source::reset_events::{Caller, Direction, Place, ResetEvent, ResetEvents, ResetTally};
use crate::source::sysctl;
use crate::value::TcpState;

/// What can be said about a window without its resets.
pub(super) struct Surroundings<'a> {
    observation: &'a Observation,
    ephemeral: RangeInclusive<u16>,
    /// CLOCK_BOOTTIME.
    pub window: (Duration, Duration),
}

impl<'a> Surroundings<'a> {
    pub fn new(observation: &'a Observation) -> Self {
        let ephemeral = sysctl::port_range(&observation.after.sysctls);
        Self { observation, ephemeral, window: (observation.before.at.mono, observation.after.at.mono) }
    }

    pub fn moved(&self, metric: &str) -> Option<u64> {
        delta::counter(self.observation, metric).ok().map(|reading| reading.delta)
    }

    pub fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral.contains(&port)
    }
}

pub(super) struct Context<'a> {
    around: Surroundings<'a>,
    gone_processes: GoneProcesses,
    /// Ports that somebody listened on at any time of the window, with the addresses.
    listening: BTreeMap<u16, Vec<IpAddr>>,
    gone_ports: BTreeSet<u16>,
    /// Local ports whose process died in the window: what it left behind is its death's, not a close's.
    dead_ports: BTreeSet<u16>,
    scanners: BTreeSet<IpAddr>,
    /// An accept queue of this port was full.
    full_ports: BTreeSet<u16>,
    /// Peers that reset their connections to a listener's port as regularly as a clock.
    probers: BTreeSet<(IpAddr, u16)>,
}

impl<'a> Context<'a> {
    pub fn new(observation: &'a Observation, seen: &ResetEvents) -> Self {
        let events = &seen.events;
        let mut listening: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
        let mut full_ports = BTreeSet::new();
        for trace in observation.listener_traces.values() {
            listening.entry(trace.last.port).or_default().push(trace.last.address);
            if trace.full_samples > 0 {
                full_ports.insert(trace.last.port);
            }
        }
        let mut closed_ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        for event in events.iter().filter(|e| e.reason.as_deref() == Some("NO_SOCKET")) {
            if let Some(peer) = event.peer {
                closed_ports.entry(peer.ip()).or_default().insert(event.local.port());
            }
        }
        let gone = gone_listeners(observation);
        let gone_processes = GoneProcesses::new(observation);
        let owner_died = |trace: &ListenerTrace| {
            let owners = observation.before.owners.value();
            let holders = owners.and_then(|owners| owners.by_inode.get(&trace.last.inode));
            holders.is_some_and(|pids| pids.iter().all(|pid| gone_processes.contains(*pid) == Some(true)))
        };
        let left_by_dead = gone.iter().filter(|gone| owner_died(gone.trace)).map(|gone| gone.trace.last.port);
        Self {
            around: Surroundings::new(observation),
            dead_ports: seen
                .tallies
                .iter()
                .filter(|tally| tally.exiting && tally.place == Place::Here)
                .filter_map(|tally| tally.local_port)
                .chain(left_by_dead)
                .collect(),
            gone_ports: gone.iter().map(|gone| gone.trace.last.port).collect(),
            listening,
            scanners: closed_ports.into_iter().filter(|(_, p)| p.len() >= SCAN_PORTS).map(|(peer, _)| peer).collect(),
            probers: probers(events),
            full_ports,
            gone_processes,
        }
    }

    pub fn moved(&self, metric: &str) -> Option<u64> {
        self.around.moved(metric)
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        self.around.is_ephemeral(port)
    }

    /// From one of our ephemeral ports to a service port: this side had opened that connection.
    pub fn is_rest_of_own(&self, tally: &ResetTally) -> bool {
        tally.local_port.is_some_and(|port| self.is_ephemeral(port) && !self.listening.contains_key(&port))
            && tally.peer_sample.is_some_and(|peer| peer.port() != 0 && !self.is_ephemeral(peer.port()))
    }

    pub fn kind(&self, tally: &ResetTally, mark: Mark) -> Kind {
        let prober = match (tally.peer_addr, tally.local_port) {
            (Some(peer), Some(port)) => self.probers.contains(&(peer, port)),
            _ => false,
        };
        match tally.direction {
            Direction::Sent => self.sent(tally, mark),
            Direction::Received if mark.origin == Origin::Firewall => Kind::FirewallReject,
            Direction::Received => match tally.state_before() {
                Some(TcpState::SynSent) => Kind::UpstreamRefused,
                Some(TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck) => {
                    Kind::AfterClose
                }
                Some(TcpState::TimeWait) => Kind::AfterClose,
                _ if mark.origin == Origin::Device => Kind::Forged,
                // Loopback, or an address called from itself: the other end of a RST that this host sent and counts there.
                _ if tally.peer_addr.is_some_and(|peer| peer.is_loopback() || Some(peer) == tally.local_addr) => {
                    Kind::OtherEnd
                }
                // Where this side called, it is a request that met a server's close: a lost request.
                Some(TcpState::CloseWait) if tally.peer_port.is_none() => Kind::ClientGone,
                _ if prober => Kind::HealthCheck,
                _ => Kind::PeerReset,
            },
        }
    }

    fn sent(&self, tally: &ResetTally, mark: Mark) -> Kind {
        let Some(reason) = tally.reason.as_deref() else { return Kind::Other };
        let exited = |kind| {
            let gone = || tally.task.as_ref().and_then(|task| self.gone_processes.contains(task.pid)) == Some(true);
            if tally.exiting || gone() { Kind::Exited } else { kind }
        };
        let port = tally.local_port.unwrap_or(0);
        match reason {
            "TCP_ABORT_ON_CLOSE" => exited(Kind::UnreadData),
            "TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET" if self.dead_ports.contains(&port) => Kind::Exited,
            "TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET" => Kind::LateData,
            "TCP_ABORT_ON_LINGER" => Kind::LingerTimeout,
            "TCP_ABORT_ON_MEMORY" => Kind::Memory,
            "TCP_KEEPALIVE_TIMEOUT" => Kind::Keepalive,
            "TCP_DISCONNECT_WITH_DATA" => Kind::Aborted,
            // Only tcp_abort() sends before it leaves the state (net/ipv4/tcp.c); a listener that closes takes its queue
            // along; what remains is linger 0 or connect(AF_UNSPEC).
            "TCP_STATE" => match tally.caller {
                Some(Caller::ListenerStop) => Kind::ListenerClosed,
                Some(Caller::Destroy) => Kind::Destroyed,
                Some(Caller::Mptcp) => Kind::Mptcp,
                Some(Caller::Close | Caller::Disconnect) => exited(Kind::Aborted),
                // Without kernel symbols the socket tells.
                None => match tally.state {
                    Some(TcpState::Established | TcpState::CloseWait) => Kind::Destroyed,
                    _ if self.gone_ports.contains(&port) => Kind::ListenerClosed,
                    _ => exited(Kind::Aborted),
                },
            },
            "NO_SOCKET" => self.no_socket(tally, mark),
            // A segment with ACK met the listener: five histories end here, told apart by what else happened.
            "TCP_FLAGS" => match self.moved("TcpExt.SyncookiesFailed") {
                _ if self.full_ports.contains(&port) && self.moved("TcpExt.ListenOverflows") > Some(0) => {
                    Kind::AcceptQueueExpired
                }
                Some(1..) => Kind::Cookie,
                _ => Kind::Stale,
            },
            "INVALID_SYN" => match self.moved("TcpExt.ListenOverflows") {
                Some(1..) => Kind::AcceptQueueFull,
                _ => Kind::HandshakeRestarted,
            },
            "TCP_INVALID_ACK_SEQUENCE" => Kind::Stale,
            "TCP_RFC7323_PAWS" => Kind::Timestamp,
            mptcp if mptcp.starts_with("MPTCP") => Kind::Mptcp,
            _ => Kind::Other,
        }
    }

    fn no_socket(&self, tally: &ResetTally, mark: Mark) -> Kind {
        if mark.answered == Some(Answered::Segment) {
            return Kind::Stale;
        }
        let port = tally.local_port.unwrap_or(0);
        if tally.peer_addr.is_some_and(|peer| self.scanners.contains(&peer)) {
            return Kind::Scanned;
        }
        let listening = self.listening.get(&port).map_or(&[][..], Vec::as_slice);
        let asked = |bound: &IpAddr| tally.local_addr.is_some_and(|local| covers(*bound, local));
        match () {
            () if mark.answered == Some(Answered::Syn) && (listening.is_empty() || listening.iter().any(asked)) => {
                Kind::Refused
            }
            () if self.gone_ports.contains(&port) => Kind::Refused,
            () if listening.iter().any(asked) => Kind::Stale,
            () if !listening.is_empty() => Kind::RefusedAddress,
            // Nobody connects to an ephemeral port from a service port: it is the rest of a connection of ours.
            () if self.is_rest_of_own(tally) => Kind::Stale,
            () => Kind::Refused,
        }
    }
}

/// Peers whose resets come at regular intervals of a quarter second or more: three at least, each within 30 % of the
/// median. People and failing clients are not that regular.
fn probers(events: &[ResetEvent]) -> BTreeSet<(IpAddr, u16)> {
    let mut times: BTreeMap<(IpAddr, u16), Vec<f64>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.direction == Direction::Received) {
        if let Some(peer) = event.peer {
            times.entry((peer.ip(), event.local.port())).or_default().push(event.at.as_secs_f64());
        }
    }
    let regular = |times: &Vec<f64>| {
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        let Some(median) = gaps.get(gaps.len() / 2).copied().filter(|_| gaps.len() >= 2) else { return false };
        median >= 0.25 && gaps.iter().all(|gap| (0.7 * median..=1.3 * median).contains(gap))
    };
    times.into_iter().filter(|(_, times)| regular(times)).map(|(prober, _)| prober).collect()
}

/// A listener on `bound` takes connections to `asked`. A listener on `::` takes IPv4 as well unless IPV6_V6ONLY is set,
/// which sock_diag does not tell here: it is taken to be dual-stack.
fn covers(bound: IpAddr, asked: IpAddr) -> bool {
    let asked = asked.to_canonical();
    match bound.to_canonical() {
        IpAddr::V4(bound) if bound.is_unspecified() => asked.is_ipv4(),
        IpAddr::V6(bound) if bound.is_unspecified() => true,
        bound => bound == asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_covers_the_addresses_it_takes_connections_on() {
        let address = |text: &str| -> IpAddr { text.parse().expect("address") };
        assert!(covers(address("0.0.0.0"), address("::ffff:10.0.0.1")));
        assert!(covers(address("::"), address("10.0.0.1")));
        assert!(covers(address("127.0.0.1"), address("127.0.0.1")));
        assert!(!covers(address("127.0.0.1"), address("10.0.0.1")));
        assert!(!covers(address("0.0.0.0"), address("::1")));
    }
}
