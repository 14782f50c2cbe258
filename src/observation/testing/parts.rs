//! What a [`Case`] is put together from.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Case;
use crate::source::conntrack::Conntrack;
use crate::source::counters::Counters;
use crate::source::owners::Process;
use crate::source::reset_events::{SignalDeath, Task};
use crate::source::socket_dump::{Group, GroupKind, PortUse, Sample, SocketDump};
use crate::value::TcpState;

/// A sleeping process with room for files.
pub fn process(pid: u32, name: &str) -> Process {
    Process {
        pid,
        name: name.to_owned(),
        state: 'S',
        start_ticks: 100,
        open_files: Some(10),
        open_files_limit: Some(1024),
        ..Process::default()
    }
}

/// A group of sockets on one port, with consecutive inodes and cookies from `first` on.
pub fn group(kind: GroupKind, port: u16, sockets: u64, first: u64, idle_ms: u32) -> Group {
    let samples = (first..first + sockets.min(64)).map(|number| Sample {
        local: SocketAddr::new(address("10.0.0.9"), port),
        peer: SocketAddr::new(address("10.0.3.7"), 50_000),
        inode: number as u32,
        cookie: number,
        idle_ms: Some(idle_ms),
    });
    Group {
        kind,
        port,
        accepted: true,
        sockets,
        unread_bytes: 0,
        oldest_idle_ms: Some(idle_ms),
        samples: samples.collect(),
    }
}

/// Connection tracking with these columns in its statistics; `drop` and `invalid` are 0 if not given.
pub fn tracked(count: u64, max: u64, columns: &[(&str, u64)]) -> Conntrack {
    let mut stat = Counters::default();
    for (name, value) in [("drop", 0), ("early_drop", 0), ("invalid", 0)].iter().chain(columns) {
        stat.set(*name, *value);
    }
    Conntrack { count, max, stat: Some(stat) }
}

pub fn task(pid: u32, name: &str) -> Task {
    Task { pid, name: name.to_owned() }
}

/// One of several processes of this name, that crashed.
pub fn crashed(case: Case, pid: u32, name: &str) -> Case {
    case.signal_death(SignalDeath {
        at: Duration::from_secs(1001),
        process: task(pid, name),
        signal: 11,
        sender: None,
        netns: None,
        has_siblings: true,
        handled: false,
    })
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Half-open connections: what TCPReqQFullDoCookies, TCPReqQFullDrop, SyncookiesSent and SyncookiesRecv moved by, and how
/// many requests one port has, how many of them were retransmitted, from how many peers.
pub fn half_open(case: Case, moved: [u64; 4], port: u16, [requests, retransmitted, peers]: [u64; 3]) -> Case {
    let [cookies, drops, sent, returned] = moved;
    let mut socket_dump = SocketDump::default();
    socket_dump.ports.insert(
        port,
        PortUse {
            by_state: [(TcpState::SynRecv, requests)].into(),
            syn_recv_retransmitted: retransmitted,
            syn_recv_peers: peers,
        },
    );
    case.counter("TcpExt.TCPReqQFullDoCookies", 0, cookies)
        .counter("TcpExt.TCPReqQFullDrop", 0, drops)
        .counter("TcpExt.SyncookiesSent", 0, sent)
        .counter("TcpExt.SyncookiesRecv", 0, returned)
        .socket_dump(SocketDump::default(), socket_dump)
}
