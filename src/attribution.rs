//! Which cause a single reset belongs to: the one place where a kernel reason, a socket state and what is known of the
//! socket's surroundings become a kind of reset. The ledger counts by it, and every cause asks it.
//!
//! The reasons are those of `enum sk_rst_reason` (include/net/rstreason.h, 6.10; active resets 6.12), each provoked and
//! seen on Linux 6.18.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::delta::{self, Reading};
use crate::evidence::Missing;
use crate::snapshot::{ListenerTrace, Observation};
use crate::source::reset_events::{Direction, ResetEvent, Task};
use crate::source::tcp_state::TcpState;

/// What one reset was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    UnreadData,
    Exited,
    ListenerClosed,
    Destroyed,
    Aborted,
    LingerTimeout,
    LateData,
    Memory,
    Keepalive,
    /// Nothing listens on the port.
    Refused,
    /// Something listens on the port, but not on this address or family.
    RefusedAddress,
    /// A source that tried many closed ports.
    Scanned,
    /// A segment for a connection that this host no longer knows.
    Stale,
    AcceptQueueFull,
    /// A client's handshake expired while its connection waited for a full accept queue.
    AcceptQueueExpired,
    Cookie,
    HandshakeRestarted,
    Timestamp,
    Mptcp,
    /// A reason that has no kind of its own, or none at all.
    Other,
    /// Received while the connection was open in this direction.
    PeerReset,
    /// The same by a peer that does it at regular intervals: a prober.
    HealthCheck,
    /// Received in SYN_SENT: refused.
    UpstreamRefused,
    /// Received after this side had closed: nothing was lost.
    AfterClose,
}

impl Kind {
    /// Stable name for programs, plain words for people, and the cause that it belongs to.
    pub fn describe(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::UnreadData => ("closed-with-unread-data", "closed with unread data", Some("close-with-unread-data")),
            Self::Exited => ("process-exit", "the process exited", Some("process-exit")),
            Self::ListenerClosed => ("listener-closed", "listener closed", Some("listener-closed")),
            Self::Destroyed => ("socket-destroyed", "destroyed by an administrator", Some("socket-destroyed")),
            Self::Aborted => ("aborted", "aborted by the application", Some("abortive-close")),
            Self::LingerTimeout => ("aborted-on-linger", "closed early by TCP_LINGER2", Some("abortive-close")),
            Self::LateData => ("late-data", "data after close", Some("late-data-after-close")),
            Self::Memory => ("aborted-on-memory", "orphan or memory limit", None),
            Self::Keepalive => ("keepalive-timeout", "keepalive gave up", Some("keepalive-timeout")),
            Self::Refused => ("no-listener", "nothing listens", Some("port-without-listener")),
            Self::RefusedAddress => ("no-listener-here", "listens on another address", Some("wrong-bind-address")),
            Self::Scanned => ("port-scan", "port scan", Some("port-scan")),
            Self::Stale => ("stale-connection", "no such connection", Some("stale-connection")),
            Self::AcceptQueueFull => ("accept-queue-full", "accept queue full", Some("accept-queue-overflow")),
            Self::AcceptQueueExpired => {
                ("accept-queue-expired", "handshake expired at a full accept queue", Some("accept-queue-overflow"))
            }
            Self::Cookie => ("bad-cookie", "SYN cookie not valid", None),
            Self::HandshakeRestarted => ("handshake-restarted", "SYN inside a handshake", None),
            Self::Timestamp => ("timestamp-rejected", "timestamp rejected", Some("timestamp-rejected")),
            Self::Mptcp => ("mptcp", "Multipath TCP", None),
            Self::Other => ("other", "another kernel reason", None),
            Self::PeerReset => ("established", "in an open connection", Some("peer-reset")),
            Self::HealthCheck => ("health-check", "health checks", Some("health-check-resets")),
            Self::UpstreamRefused => ("refused", "connect refused", Some("upstream-refused")),
            Self::AfterClose => ("after-close", "after our close, harmless", None),
        }
    }

    pub fn cause(self) -> Option<&'static str> {
        self.describe().2
    }
}

/// Resets that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: Kind,
    pub direction: Direction,
    pub local: IpAddr,
    /// Our port, where this side is the server or the port is not in use.
    pub port: Option<u16>,
    pub peer: Option<IpAddr>,
    /// The peer's port, where this side is the client.
    pub peer_port: Option<u16>,
    /// Who caused it; `None` where that is not known, as in every softirq.
    pub task: Option<Task>,
    pub count: u64,
}

impl Group {
    /// This side opened the connection.
    pub fn as_client(&self) -> bool {
        self.peer_port.is_some()
    }

    /// Both ends are on this host.
    pub fn on_loopback(&self) -> bool {
        self.peer.map_or(self.local, |peer| peer).is_loopback()
    }
}

/// Every reset of a window by kind, most frequent first.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    pub groups: Vec<Group>,
    /// Why the sent ones cannot be told apart, if they cannot.
    pub sent: Result<(), Missing>,
    /// Events over the cap or lost by the kernel: the counts are lower bounds.
    pub uncounted: u64,
}

impl Attribution {
    pub fn count(&self, kind: Kind) -> u64 {
        self.groups.iter().filter(|group| group.kind == kind).map(|group| group.count).sum()
    }
}

/// Distinct closed ports from which on one source counts as a scanner: no misconfigured client tries that many.
const SCAN_PORTS: usize = 10;

/// Sorts the reset events of an observation.
pub fn attribute(observation: &Observation) -> Result<Attribution, Missing> {
    let events = observation.reset_events.get().map_err(|failure| Missing {
        source: "reset_events",
        reason: failure.reason.clone(),
        needs: failure.needs.clone(),
    })?;
    let context = Context::new(observation, &events.events);
    type Key = (Kind, Direction, IpAddr, Option<u16>, Option<IpAddr>, Option<u16>, Option<Task>);
    let mut groups: BTreeMap<Key, u64> = BTreeMap::new();
    for event in &events.events {
        let kind = context.kind(event);
        let client = context.is_client(event, kind);
        let key = (
            kind,
            event.direction,
            event.local.ip().to_canonical(),
            (!client).then(|| event.local.port()),
            event.peer.map(|peer| peer.ip().to_canonical()),
            event.peer.filter(|_| client).map(|peer| peer.port()),
            event.task.clone().filter(|_| !event.softirq),
        );
        *groups.entry(key).or_default() += 1;
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|((kind, direction, local, port, peer, peer_port, task), count)| Group {
            kind,
            direction,
            local,
            port,
            peer,
            peer_port,
            task,
            count,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let reasons = events.events.iter().any(|e| e.direction == Direction::Sent && e.reason.is_some());
    let sent = match context.moved("Tcp.OutRsts") {
        Some(1..) if !reasons => Err(Missing {
            source: "reset_events",
            reason: "RSTs were sent, and no tracepoint gave a reason for any of them".to_owned(),
            needs: Some("Linux 6.12 or later for the reasons".to_owned()),
        }),
        _ => Ok(()),
    };
    Ok(Attribution { groups, sent, uncounted: events.dropped + events.lost })
}

/// A listener that was there when the window opened, or in a sample, and is gone at its end.
#[derive(Debug, Clone, Copy)]
pub struct GoneListener<'a> {
    pub trace: &'a ListenerTrace,
    /// Another socket listens on the same address and port now.
    pub replaced: bool,
}

/// Listeners that went away in the window; empty when nobody looked at its end.
pub fn gone_listeners(observation: &Observation) -> Vec<GoneListener<'_>> {
    if observation.after.listeners.value().is_none() {
        return Vec::new();
    }
    let traces = || observation.listener_traces.values();
    traces()
        .filter(|trace| !trace.in_after)
        .map(|trace| {
            let same =
                |other: &ListenerTrace| (other.last.address, other.last.port) == (trace.last.address, trace.last.port);
            GoneListener { trace, replaced: traces().any(|other| other.in_after && same(other)) }
        })
        .collect()
}

/// A process that held a listener at the start and holds nothing that was looked up at the end: it died, or it closed all
/// of that. `None` when owners were not seen at both ends.
pub fn is_gone(observation: &Observation, pid: u32) -> Option<bool> {
    let before = observation.before.owners.value()?;
    let after = observation.after.owners.value()?;
    let Some(was) = before.processes.get(&pid) else { return Some(false) };
    let listened = observation
        .before
        .listeners
        .value()?
        .iter()
        .any(|l| before.by_inode.get(&l.inode).is_some_and(|holders| holders.contains(&pid)));
    // The same number with another start is another process.
    let still = after.processes.get(&pid).is_some_and(|now| now.start_ticks == was.start_ticks);
    Some(listened && !still)
}

struct Context<'a> {
    observation: &'a Observation,
    /// Ports that somebody listened on at any time of the window, with the addresses.
    listening: BTreeMap<u16, Vec<IpAddr>>,
    gone_ports: BTreeSet<u16>,
    ephemeral: (u16, u16),
    scanners: BTreeSet<IpAddr>,
    /// An accept queue of this port was full.
    full_ports: BTreeSet<u16>,
    /// Peers that reset their connections to a listener's port as regularly as a clock.
    probers: BTreeSet<(IpAddr, u16)>,
}

impl<'a> Context<'a> {
    fn new(observation: &'a Observation, events: &[ResetEvent]) -> Self {
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
        let range = observation.after.sysctls.get("net.ipv4.ip_local_port_range").and_then(|text| text.value());
        let mut bounds = range.map(String::as_str).unwrap_or_default().split_whitespace().map(str::parse);
        let ephemeral = match (bounds.next(), bounds.next()) {
            (Some(Ok(low)), Some(Ok(high))) => (low, high),
            // The default since 2.4 (net/ipv4/af_inet.c inet_init_net).
            _ => (32_768, 60_999),
        };
        Self {
            observation,
            gone_ports: gone_listeners(observation).iter().map(|gone| gone.trace.last.port).collect(),
            listening,
            ephemeral,
            scanners: closed_ports.into_iter().filter(|(_, p)| p.len() >= SCAN_PORTS).map(|(peer, _)| peer).collect(),
            probers: probers(events),
            full_ports,
        }
    }

    fn moved(&self, metric: &str) -> Option<u64> {
        let pick = |snapshot: &'a crate::snapshot::Snapshot| {
            if metric.starts_with("TcpExt.") { &snapshot.netstat } else { &snapshot.snmp }
        };
        let (before, after) = (pick(&self.observation.before), pick(&self.observation.after));
        let reading: Result<Reading, _> = delta::reading("", metric, before, after, self.observation.duration());
        reading.ok().map(|reading| reading.delta)
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        (self.ephemeral.0..=self.ephemeral.1).contains(&port)
    }

    /// This side opened the connection: its port is ephemeral, the peer's is not, and nobody listens on ours.
    fn is_client(&self, event: &ResetEvent, kind: Kind) -> bool {
        match kind {
            Kind::UpstreamRefused => true,
            Kind::Refused | Kind::RefusedAddress | Kind::Scanned => false,
            _ => {
                !self.listening.contains_key(&event.local.port())
                    && self.is_ephemeral(event.local.port())
                    && event.peer.is_some_and(|peer| peer.port() != 0 && !self.is_ephemeral(peer.port()))
            }
        }
    }

    fn kind(&self, event: &ResetEvent) -> Kind {
        match event.direction {
            Direction::Sent => self.sent(event),
            Direction::Received => match event.state {
                Some(TcpState::SynSent) => Kind::UpstreamRefused,
                Some(TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck) => {
                    Kind::AfterClose
                }
                Some(TcpState::TimeWait) => Kind::AfterClose,
                _ if event.peer.is_some_and(|p| self.probers.contains(&(p.ip(), event.local.port()))) => {
                    Kind::HealthCheck
                }
                _ => Kind::PeerReset,
            },
        }
    }

    fn sent(&self, event: &ResetEvent) -> Kind {
        let Some(reason) = event.reason.as_deref() else { return Kind::Other };
        let exited = |kind| {
            let died = event.task.as_ref().filter(|_| !event.softirq).and_then(|t| is_gone(self.observation, t.pid));
            if died == Some(true) { Kind::Exited } else { kind }
        };
        let port = event.local.port();
        match reason {
            "TCP_ABORT_ON_CLOSE" => exited(Kind::UnreadData),
            "TCP_ABORT_ON_DATA" | "TCP_TIMEWAIT_SOCKET" => Kind::LateData,
            "TCP_ABORT_ON_LINGER" => Kind::LingerTimeout,
            "TCP_ABORT_ON_MEMORY" => Kind::Memory,
            "TCP_KEEPALIVE_TIMEOUT" => Kind::Keepalive,
            "TCP_DISCONNECT_WITH_DATA" => Kind::Aborted,
            // Only tcp_abort() sends before it leaves the state (net/ipv4/tcp.c); a listener that closes takes its queue
            // along; what remains is linger 0 or connect(AF_UNSPEC).
            "TCP_STATE" => match event.state {
                Some(TcpState::Established | TcpState::CloseWait) => Kind::Destroyed,
                _ if self.gone_ports.contains(&port) => Kind::ListenerClosed,
                _ => exited(Kind::Aborted),
            },
            "NO_SOCKET" => self.no_socket(event),
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

    fn no_socket(&self, event: &ResetEvent) -> Kind {
        let port = event.local.port();
        if event.peer.is_some_and(|peer| self.scanners.contains(&peer.ip())) {
            return Kind::Scanned;
        }
        let listening = self.listening.get(&port).map_or(&[][..], Vec::as_slice);
        match () {
            () if self.gone_ports.contains(&port) => Kind::Refused,
            () if listening.iter().any(|address| covers(*address, event.local.ip())) => Kind::Stale,
            () if !listening.is_empty() => Kind::RefusedAddress,
            // Nobody connects to an ephemeral port from a service port: it is the rest of a connection of ours.
            () if self.is_client(event, Kind::Stale) => Kind::Stale,
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

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        use Kind::*;
        let kinds = [
            UnreadData,
            Exited,
            ListenerClosed,
            Destroyed,
            Aborted,
            LingerTimeout,
            LateData,
            Memory,
            Keepalive,
            Refused,
            RefusedAddress,
            Scanned,
            Stale,
            AcceptQueueFull,
            AcceptQueueExpired,
            Cookie,
            HandshakeRestarted,
            Timestamp,
            Mptcp,
            Other,
            PeerReset,
            HealthCheck,
            UpstreamRefused,
            AfterClose,
        ];
        let names: BTreeSet<_> = kinds.iter().map(|kind| kind.describe().0).collect();
        assert_eq!(names.len(), kinds.len());
    }
}
