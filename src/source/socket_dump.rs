//! The sweep of all TCP sockets, folded into aggregates whose size does not grow with the number of sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::listeners::Listener;
use super::sock_diag::{self, Walker};
use crate::ask::{DiagQuery, Probe};
use crate::value::{EphemeralPorts, NetnsId, Observed, TcpState};

mod fold;
mod ports;

pub use fold::Fold;

/// What a full sweep found. Every list is capped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketDump {
    /// Number of sockets in each state. LISTEN is included.
    pub by_state: BTreeMap<TcpState, u64>,
    /// The local ports with the most sockets, LISTEN excluded.
    pub ports: BTreeMap<u16, PortUse>,
    /// More ports are in use than are in `ports`.
    pub ports_capped: bool,
    /// (source address, destination address, destination port) with the most local ports in use, largest first. Sockets
    /// accepted by a listener of this host are not counted: their local port is not an ephemeral one.
    pub destinations: Vec<Destination>,
    /// Local ports that any socket uses, services' excluded: bit N of word N / 64. Empty without a sweep.
    pub used_ports: Vec<u64>,
    /// Remote addresses with the most sockets, largest first.
    pub peers: Vec<Peer>,
    /// Groups of sockets that a cause may want to name, with samples whose owners can be looked up.
    pub groups: Vec<Group>,
}

impl SocketDump {
    /// How many of these local ports are used by any socket.
    pub fn ports_used(&self, ports: EphemeralPorts) -> u64 {
        let used =
            |port: &u16| self.used_ports.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 == 1);
        (0..=u16::MAX).filter(|port| ports.contains(*port)).filter(used).count() as u64
    }
}

/// Sockets with one local port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortUse {
    pub by_state: BTreeMap<TcpState, u64>,
    /// Half-open requests whose SYN-ACK was retransmitted at least once.
    pub syn_recv_retransmitted: u64,
    /// Distinct peers among the half-open requests, counted up to a cap of 1024.
    pub syn_recv_peers: u64,
}

/// Use of local ports towards one destination. Each socket of the triple occupies its own local port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub source: IpAddr,
    pub address: IpAddr,
    pub port: u16,
    pub ports_used: u64,
    /// How many of `ports_used` are in TIME_WAIT.
    pub time_wait: u64,
    /// How many are in FIN_WAIT2: this side closed, the peer acknowledged that and did not close. Without a process it is a small
    /// socket that net.ipv4.tcp_fin_timeout ends (net/ipv4/tcp_input.c tcp_rcv_state_process).
    pub fin_wait2: u64,
    /// Inodes of a few of these sockets that still have an owner.
    pub inodes: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub sockets: u64,
    pub syn_recv: u64,
}

/// Why a group of sockets is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// CLOSE_WAIT: the peer closed, the application here did not.
    CloseWait,
    /// ESTABLISHED without any timer, no data for `IDLE_AFTER` seconds, peer not on this host.
    IdleWithoutKeepalive,
    /// ESTABLISHED, any: the live connections of a service.
    Established,
    /// ESTABLISHED or CLOSE_WAIT with unread bytes: a close now would send a RST.
    Unread,
    /// Sockets whose retransmission or zero-window probe timer runs and has fired at least twice.
    Retransmitting,
    /// A keepalive probe is unanswered.
    KeepaliveProbing,
    /// SYN_SENT: our own connects without an answer yet.
    Connecting,
    /// SYN_SENT whose SYN was sent again: an answer takes no second on any path.
    Unanswered,
}

/// Sockets of one kind that share a service: the local port for accepted connections, else the remote one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: GroupKind,
    /// The port of the service: ours if `accepted`, else the peer's.
    pub port: u16,
    /// The local port belongs to a listener of this host.
    pub accepted: bool,
    pub sockets: u64,
    /// Sum of the receive queues, bytes.
    pub unread_bytes: u64,
    /// Longest time without data received, from tcp_info; `None` when the kernel does not report it.
    pub oldest_idle_ms: Option<u32>,
    /// Some members (at most 64), for owners and examples.
    pub samples: Vec<Sample>,
}

impl Group {
    /// How many of the sockets are with each peer. Where more are there than samples were taken, their shares are those of the samples.
    pub fn by_peer(&self) -> BTreeMap<SocketAddr, u64> {
        let mut samples: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        self.samples.iter().for_each(|sample| *samples.entry(sample.peer).or_default() += 1);
        let times = self.sockets as f64 / self.samples.len().max(1) as f64;
        samples.into_iter().map(|(peer, count)| (peer, (count as f64 * times).round() as u64)).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub inode: u32,
    pub cookie: u64,
    pub idle_ms: Option<u32>,
}

/// Seconds without data after which an ESTABLISHED socket counts as idle: the shortest idle limit of common network
/// devices is 60 s, most are 240 s or more.
pub const IDLE_AFTER: u32 = 240;

/// What to ask for: every state, with tcp_info for the idle times.
pub const QUERY: DiagQuery = DiagQuery { name: "sockets", states: 0x1ffe, extensions: sock_diag::WITH_TCP_INFO };

/// Sweeps all sockets. `listeners` decides which local ports are services of this host.
pub fn collect(probe: &mut dyn Probe, netns: NetnsId, listeners: &[Listener]) -> (Observed<SocketDump>, Duration) {
    let mut fold = Fold::new(listeners);
    let dumped = sock_diag::dump(probe, netns, QUERY, |socket| fold.add(socket));
    (sock_diag::observed(|| fold.finish(), dumped.sockets, dumped.result), dumped.took)
}

/// The socket_dump of one dump: `Partial` if the dump is a prefix, `Unavailable` if it broke off before any socket.
pub fn parse(bytes: &[u8], listeners: &[Listener]) -> Observed<SocketDump> {
    let mut fold = Fold::new(listeners);
    let mut walker = Walker::default();
    walker.feed(bytes, |socket| fold.add(socket));
    sock_diag::observed(|| fold.finish(), walker.sockets(), walker.finish())
}

#[cfg(test)]
mod tests;
