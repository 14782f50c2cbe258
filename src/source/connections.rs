//! Which socket is which open connection, so that its process can be named when something in a softirq ends it.

use std::net::SocketAddr;
use std::time::Duration;

use super::sock_diag::{self, Socket};
use super::sockstat;
use crate::ask::{DiagQuery, Probe, Scope};
use crate::value::{NetnsId, TcpState};

/// An open connection that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub inode: u32,
    /// See [`Socket::cookie`].
    pub cookie: u64,
}

/// What to ask for: connections that have a process behind them.
pub const QUERY: DiagQuery = DiagQuery {
    name: "connections",
    states: TcpState::Established.bit() | TcpState::CloseWait.bit() | TcpState::SynSent.bit(),
    extensions: 0,
};

/// With more sockets than this none is looked at: the dump would take longer than a reset may wait.
const MAX_CONNECTIONS: u64 = 20_000;

/// The open connections; none where there are too many to look at.
pub fn collect(probe: &mut dyn Probe, netns: NetnsId) -> (Vec<Connection>, Duration) {
    let mut found = Vec::new();
    let scope = Scope::Netns(netns);
    let [(four, took4), (six, took6)] = [&sockstat::FILE, &sockstat::FILE_6].map(|file| file.collect(probe, scope));
    let mut took = took4 + took6;
    // Without IPv6 there is no second file.
    let six = six.value().and_then(|counters| counters.get("TCP6.inuse")).unwrap_or(0);
    let four = four.value().and_then(|counters| counters.get("TCP.inuse"));
    if four.is_some_and(|four| four + six <= MAX_CONNECTIONS) {
        let dumped = sock_diag::dump(probe, netns, QUERY, |socket| found.extend(connection(socket)));
        took += dumped.took;
    }
    (found, took)
}

fn connection(socket: &Socket<'_>) -> Option<Connection> {
    (socket.inode() != 0).then(|| Connection {
        local: socket.local(),
        peer: socket.peer(),
        inode: socket.inode(),
        cookie: socket.cookie(),
    })
}
