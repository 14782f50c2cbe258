//! The fold of a sweep into a [`SocketDump`]: one pass, no allocation per socket, memory that does not grow with the sockets.
//!
//! The hot path counts in arrays and in [`HeavyHitters`]; the maps that are nice to read are made once, at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::super::heavy_hitters::{FastHash, HeavyHitters, Hit};
use super::super::listeners::Listener;
use super::super::sock_diag::{Address, Socket, to_ip};
use super::ports::Ports;
use super::{Destination, Group, GroupKind, IDLE_AFTER, Peer, PortUse, Sample, SocketDump};
use crate::value::TcpState;

/// Destinations, peers and groups that are counted at once, each.
const TRACKED: usize = 2048;
/// Destinations and peers that are reported, each.
const REPORTED: usize = 1024;
/// Local ports that are reported; all are counted.
const PORTS_REPORTED: usize = 4096;
const SYN_PEERS_PER_PORT: usize = 1024;
const SYN_PEERS: usize = 65_536;
const SAMPLES_PER_GROUP: usize = 64;
/// Samples of all groups of one kind: one kind with many groups must not take the samples of a rare one. With eight
/// kinds fewer than 4096 in all.
const SAMPLES_PER_KIND: usize = 511;
/// Half of the samples are for groups of at least this many sockets, so that many small ones do not use all up.
const LARGE_GROUP: u64 = 32;
const INODES_PER_DESTINATION: usize = 8;

/// sock_diag timer numbers (net/ipv4/inet_diag.c inet_sk_diag_fill).
const TIMER_NONE: u8 = 0;
const TIMER_RETRANSMIT: u8 = 1;
const TIMER_KEEPALIVE: u8 = 2;
const TIMER_PROBE: u8 = 4;

/// A socket_dump in the making.
pub struct Fold {
    by_state: [u64; TcpState::ALL.len()],
    ports: Ports,
    half_open: HashMap<u16, HalfOpen, FastHash>,
    half_open_peers: usize,
    destinations: HeavyHitters<(Address, Address, u16), DestinationSum>,
    peers: HeavyHitters<Address, PeerSum>,
    groups: HeavyHitters<GroupKey, GroupSum>,
    samples: [usize; 8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct GroupKey {
    kind: GroupKind,
    port: u16,
    accepted: bool,
}

impl Hash for GroupKey {
    /// One number instead of three.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32((self.kind as u32) << 17 | u32::from(self.accepted) << 16 | u32::from(self.port));
    }
}

#[derive(Default)]
struct HalfOpen {
    retransmitted: u64,
    peers: HashSet<Address, FastHash>,
}

#[derive(Default)]
struct DestinationSum {
    time_wait: u64,
    fin_wait2: u64,
    inodes: [u32; INODES_PER_DESTINATION],
}

#[derive(Default)]
struct PeerSum {
    syn_recv: u64,
}

#[derive(Default)]
struct GroupSum {
    kind: Option<GroupKind>,
    unread: u64,
    oldest_idle_ms: Option<u32>,
    samples: Vec<Sample>,
}

impl Fold {
    /// `listeners` decides which local ports are services of this host.
    pub fn new(listeners: &[Listener]) -> Self {
        Self {
            by_state: Default::default(),
            ports: Ports::new(listeners),
            half_open: HashMap::default(),
            half_open_peers: 0,
            destinations: HeavyHitters::new(TRACKED),
            peers: HeavyHitters::new(TRACKED),
            groups: HeavyHitters::new(TRACKED),
            samples: [0; 8],
        }
    }

    /// Counts one socket.
    pub fn add(&mut self, socket: &Socket<'_>) {
        let number = socket.state();
        let index = usize::from(number.wrapping_sub(1));
        let Some(total) = self.by_state.get_mut(index) else { return };
        *total += 1;
        if number == TcpState::Listen as u8 {
            return;
        }
        let (local, local_port) = (socket.local_address(), socket.local_port());
        let (peer, peer_port) = (socket.peer_address(), socket.peer_port());
        let accepted = self.ports.add(local, local_port, number);
        let half_open = number == TcpState::SynRecv as u8 || number == TcpState::NewSynRecv as u8;
        self.peers.add(peer).value.syn_recv += u64::from(half_open);
        if half_open {
            self.add_half_open(local_port, peer, socket.retransmits());
            return;
        }
        if !accepted && peer_port != 0 {
            let sum = self.destinations.add((local, peer, peer_port)).value;
            sum.time_wait += u64::from(number == TcpState::TimeWait as u8);
            sum.fin_wait2 += u64::from(number == TcpState::FinWait2 as u8);
            let inode = socket.inode();
            if inode != 0
                && let Some(free) = sum.inodes.iter_mut().find(|known| **known == 0 || **known == inode)
            {
                *free = inode;
            }
        }
        // Most sockets of a large table, and the only ones without tcp_info: no group wants them.
        if number != TcpState::TimeWait as u8 {
            self.add_to_groups(socket, accepted, if accepted { local_port } else { peer_port });
        }
    }

    fn add_half_open(&mut self, port: u16, peer: Address, retransmits: u8) {
        let half_open = self.half_open.entry(port).or_default();
        half_open.retransmitted += u64::from(retransmits > 0);
        if half_open.peers.len() < SYN_PEERS_PER_PORT && self.half_open_peers < SYN_PEERS {
            self.half_open_peers += usize::from(half_open.peers.insert(peer));
        }
    }

    fn add_to_groups(&mut self, socket: &Socket<'_>, accepted: bool, port: u16) {
        let state = socket.state();
        let established = state == TcpState::Established as u8;
        let close_wait = state == TcpState::CloseWait as u8;
        let connecting = state == TcpState::SynSent as u8;
        let timer = socket.timer();
        let info = if established || close_wait { socket.tcp_info() } else { None };
        // The peer's FIN takes a sequence number, which rcv_nxt - copied_seq counts until the application reads the end
        // of the stream; closing then sends no RST (net/ipv4/tcp.c tcp_close).
        let unread = socket.rqueue().saturating_sub(u32::from(close_wait));
        let idle_ms = info.and_then(|info| info.idle_ms());
        let mut member = Member { socket, accepted, port, unread, idle_ms, received_ms: None };
        member.received_ms = info.and_then(|info| info.last_data_recv_ms());

        if established {
            self.join(GroupKind::Established, &member);
            let idle = timer == TIMER_NONE && idle_ms.is_some_and(|idle| idle >= IDLE_AFTER * 1000);
            if idle && !self.ports.is_this_host(socket.local_address(), socket.peer_address()) {
                self.join(GroupKind::IdleWithoutKeepalive, &member);
            }
        }
        if close_wait {
            self.join(GroupKind::CloseWait, &member);
        }
        if connecting {
            self.join(GroupKind::Connecting, &member);
            if socket.retransmits() >= 1 {
                self.join(GroupKind::Unanswered, &member);
            }
        }
        if (established || close_wait) && unread > 0 {
            self.join(GroupKind::Unread, &member);
        }
        if !connecting && matches!(timer, TIMER_RETRANSMIT | TIMER_PROBE) && socket.retransmits() >= 2 {
            self.join(GroupKind::Retransmitting, &member);
        }
        if timer == TIMER_KEEPALIVE && socket.retransmits() >= 1 {
            self.join(GroupKind::KeepaliveProbing, &member);
        }
    }

    fn join(&mut self, kind: GroupKind, member: &Member<'_>) {
        let added = self.groups.add(GroupKey { kind, port: member.port, accepted: member.accepted });
        if let Some(GroupSum { kind: Some(kind), samples, .. }) = added.evicted {
            self.samples[kind as usize] -= samples.len();
        }
        let sum = added.value;
        sum.kind = Some(kind);
        sum.unread += u64::from(member.unread);
        sum.oldest_idle_ms = sum.oldest_idle_ms.max(member.received_ms);
        if sum.samples.len() < SAMPLES_PER_GROUP {
            let used = &mut self.samples[kind as usize];
            let share = if added.seen >= LARGE_GROUP { SAMPLES_PER_KIND } else { SAMPLES_PER_KIND / 2 };
            if *used < share {
                *used += 1;
                sum.samples.push(member.sample());
            }
        }
    }

    /// The socket_dump of the sockets so far.
    pub fn finish(self) -> SocketDump {
        let (foremost, used) = self.ports.foremost(PORTS_REPORTED);
        let ports = foremost.iter().map(|port| {
            let half_open = self.half_open.get(port);
            let port_use = PortUse {
                by_state: present(self.ports.states(*port).map(|(number, count)| (number, u64::from(count)))),
                syn_recv_retransmitted: half_open.map_or(0, |half_open| half_open.retransmitted),
                syn_recv_peers: half_open.map_or(0, |half_open| half_open.peers.len() as u64),
            };
            (*port, port_use)
        });

        let destination = |hit: Hit<(Address, Address, u16), DestinationSum>| {
            let (source, address, port) = hit.key;
            Destination {
                source: to_ip(source),
                address: to_ip(address),
                port,
                ports_used: hit.seen,
                time_wait: hit.value.time_wait,
                fin_wait2: hit.value.fin_wait2,
                inodes: hit.value.inodes.into_iter().filter(|inode| *inode != 0).collect(),
            }
        };
        let peer = |hit: Hit<Address, PeerSum>| Peer {
            address: to_ip(hit.key),
            sockets: hit.seen,
            syn_recv: hit.value.syn_recv,
        };
        SocketDump {
            by_state: present((1u8..=12).zip(self.by_state)),
            used_ports: self.ports.used(),
            ports: ports.collect(),
            ports_capped: used > foremost.len(),
            destinations: self.destinations.into_hits().into_iter().take(REPORTED).map(destination).collect(),
            peers: self.peers.into_hits().into_iter().take(REPORTED).map(peer).collect(),
            groups: self.groups.into_hits().into_iter().map(group).collect(),
        }
    }
}

fn present(counts: impl Iterator<Item = (u8, u64)>) -> BTreeMap<TcpState, u64> {
    counts
        .filter(|(_, count)| *count > 0)
        .filter_map(|(number, count)| Some((TcpState::from_number(number)?, count)))
        .collect()
}

fn group(hit: Hit<GroupKey, GroupSum>) -> Group {
    let GroupKey { kind, port, accepted } = hit.key;
    Group {
        kind,
        port,
        accepted,
        sockets: hit.seen,
        unread_bytes: hit.value.unread,
        oldest_idle_ms: hit.value.oldest_idle_ms,
        samples: hit.value.samples,
    }
}

/// A socket on its way into groups.
struct Member<'a> {
    socket: &'a Socket<'a>,
    accepted: bool,
    port: u16,
    unread: u32,
    idle_ms: Option<u32>,
    received_ms: Option<u32>,
}

impl Member<'_> {
    fn sample(&self) -> Sample {
        Sample {
            local: self.socket.local(),
            peer: self.socket.peer(),
            inode: self.socket.inode(),
            cookie: self.socket.cookie(),
            idle_ms: self.idle_ms,
        }
    }
}
