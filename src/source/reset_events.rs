//! Single resets as the kernel reported them by tracepoint.

use std::net::SocketAddr;
use std::time::Duration;

use super::tcp_state::TcpState;

/// What the reset tracepoints delivered between two frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetEvents {
    /// In order of time, capped; `dropped` counts those over the cap.
    pub events: Vec<ResetEvent>,
    /// Events that arrived but did not fit the cap.
    pub dropped: u64,
    /// Records that the kernel reported lost.
    pub lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Sent,
    Received,
}

/// One RST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetEvent {
    /// CLOCK_BOOTTIME or CLOCK_MONOTONIC of the kernel record, as `Moment::mono`.
    pub at: Duration,
    pub direction: Direction,
    pub local: SocketAddr,
    /// `None` where the kernel does not know it (a RST sent from a LISTEN socket prints 0.0.0.0:0).
    pub peer: Option<SocketAddr>,
    /// State of the socket when it sent or received the RST; for an active reset usually CLOSE already.
    pub state: Option<TcpState>,
    /// Symbol of `enum sk_rst_reason` or `skb_drop_reason` without prefix, e.g. `TCP_ABORT_ON_CLOSE`; kernel 6.10 and
    /// later.
    pub reason: Option<String>,
    /// The current task. Only meaningful when `softirq` is false: in softirq context it is whoever was interrupted.
    pub task: Option<Task>,
    pub softirq: bool,
    /// sock_cookie, where the tracepoint carries it.
    pub cookie: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    pub pid: u32,
    pub name: String,
}
