//! Single resets as the kernel reported them by tracepoint: the types, and (in the submodules) a pure parser of the
//! byte stream that answers [`What::ResetEvents`](crate::ask::What::ResetEvents).
//!
//! # The stream
//! Blocks as in [`stream`](crate::stream):
//!
//! | kind | payload |
//! |---|---|
//! | 1 start | text: `rstdoctor-reset-events 1`, `endian little\|big`, one `event ID CPU SAMPLE_TYPE NAME` per perf event |
//! | 2 format | the `format` file of one tracepoint, verbatim |
//! | 3 scope | text: per observed namespace `netns INODE`, `address A`..., `local PREFIX/LENGTH`... of local routes, `ephemeral LOW HIGH`; then `namespace INODE` for each other one |
//! | 4 tasks | text: `PID NETNS\|- user\|kernel COMM` per process alive at the start; `\\` and `\n` escaped in COMM |
//! | 5 symbols | text: `START END NAME`, hexadecimal kernel addresses; only the functions that tell resets apart |
//! | 6 clock | text: `MONOTONIC BOOTTIME` in ns, read together when a drain began |
//! | 7 records | perf records as the kernel wrote them (perf_event_open(2)), whole, in the order of that CPU |
//! | 8 counts | text: `ID COUNT [LOST]`, running totals of each event from read(2) of its descriptor; `final` at the end |
//! | 9 note | text: `NAME REASON`, something that is missing |
//!
//! # Lost records
//! The kernel counts an event before it looks for room for its record. Once the events are disabled, after which the counts
//! block ends with `final`, the counts minus the records are exactly what was lost, for whatever reason: on Linux 6.18 a few
//! records are missing that even the kernel's own total of lost samples does not know. Until then that total is taken.
//! Counts, records and losses are those of the whole host.
//!
//! Side-band records come from events with `sample_id_all` and PERF_SAMPLE_TIME: they end with a `u64` time.
//!
//! The first answer holds kinds 1 to 4. Each answer holds 6, then side-band records (comm, fork, exit, namespaces), then
//! the samples of each CPU. 5 comes once, before the first sample with a call chain. Unknown kinds are skipped.
//!
//! Sample times are CLOCK_MONOTONIC (perf accepts CLOCK_BOOTTIME only for NMI-safe PMUs, which tracepoints are not);
//! the clock block turns them into CLOCK_BOOTTIME.
//!
//! # Whose reset
//! The records carry no network namespace and the tracepoints see the whole host. See [`ResetEvent::netns`] for how an event
//! is assigned to one.
//!
//! # What is not opened: skb:kfree_skb
//! It could tell a segment that met a full accept queue (TCP_LISTEN_OVERFLOW) or a silent netfilter rule (NETFILTER_DROP). No
//! cause needs it. A SYN at a full queue is dropped without it: of 92 ListenOverflows in the lab it reported 46 (Linux 6.18),
//! while the counter has them all and SK_MEMINFO_DROPS says of which listener. A silent drop sends no RST. And it costs every
//! host: its filter is evaluated for each freed packet, once per connection on a healthy server (74,369 times in 74,370
//! connections, all QUEUE_PURGE, none of them of interest).

use std::net::SocketAddr;
use std::time::Duration;

use crate::value::{Errno, NetnsId, TcpState, words};

mod call_chain;
mod deaths;
pub mod format;
pub mod layout;
mod losses;
mod parser;
pub mod record;
pub mod redaction;
mod scope;
mod side_band;
mod tally;
mod tasks;

pub use call_chain::is_telling;
pub use deaths::SignalDeath;
pub use parser::{Events, ResetParser};
pub use side_band::SideBand;
pub use tally::{ResetTally, Tallies};

pub const MAGIC: &str = "rstdoctor-reset-events 1";

const MAX_LISTENERS: usize = 1_000;
const MAX_DEATHS: usize = 1_000;

/// The last line of a counts block after which nothing more was recorded.
pub const FINAL: &str = "final\n";

/// A record is written within this time of its event being counted: it is a microsecond unless the CPU is taken away.
pub const SETTLED_NS: u64 = 5_000_000;

/// What the reset tracepoints delivered between two frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetEvents {
    /// In order of time, capped; `dropped` counts those over the cap. None of them is of a namespace that is not observed.
    pub events: Vec<ResetEvent>,
    /// Events that arrived but did not fit the cap: they are in `tallies`.
    pub dropped: u64,
    /// The `dropped` events in groups. The counts are exact; only the grouping gets coarser when there are very many groups.
    /// Most frequent first.
    pub tallies: Vec<ResetTally>,
    /// In order of time, capped; `errors_dropped` counts those over the cap.
    pub errors: Vec<SocketError>,
    pub errors_dropped: u64,
    pub account: EventAccount,
}

/// An error that the kernel put on a TCP socket that a program holds: what its next call fails with, and what then stands in its
/// log. sk_error_report() in net/core/sock.c, Linux 5.14 and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketError {
    /// CLOCK_BOOTTIME.
    pub at: Duration,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub errno: Errno,
    /// See [`ResetEvent::netns`]. An error of a timer on a loopback address has none.
    pub netns: Option<NetnsId>,
}

/// What was read, lost and left out, on the whole host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventAccount {
    /// Events that belong to namespaces that are not observed.
    pub elsewhere: u64,
    /// Records of resets that were read, those of other namespaces and `bogus_received` included.
    pub read: u64,
    /// Resets that the kernel counted, on the whole host, but whose records were lost. `read + lost` is its count.
    pub lost: u64,
    /// Those of `lost` that were sent, and those of which the kernel does not say whether they were, before Linux 6.0.
    pub lost_sent: u64,
    pub lost_either: u64,
    /// LISTEN to CLOSE transitions in an observed namespace or one that is not known, capped at 1,000.
    pub listeners_closed: Vec<ListenerClosed>,
    /// Processes that closed one of `listeners_closed` and ended.
    pub ended: Vec<u32>,
    /// Processes that a signal ended, of all namespaces, capped at 1,000.
    pub deaths: Vec<SignalDeath>,
    /// tcp_receive_reset events without a RST, discarded: data after close calls tcp_reset() (net/ipv4/tcp_input.c).
    pub bogus_received: u64,
    /// What these events lack, by name: a tracepoint that this kernel does not have, hidden symbols.
    pub missing: Vec<Missing>,
    /// Errors of sockets are reported, too.
    pub reports_errors: bool,
    /// Signals that end a process are reported, too.
    pub reports_signals: bool,
}

impl EventAccount {
    /// Adds what came after it.
    pub fn add(&mut self, later: Self) {
        self.elsewhere += later.elsewhere;
        self.read += later.read;
        self.lost += later.lost;
        self.lost_sent += later.lost_sent;
        self.lost_either += later.lost_either;
        self.bogus_received += later.bogus_received;
        self.missing = later.missing;
        self.reports_errors |= later.reports_errors;
        self.reports_signals |= later.reports_signals;
        let room = MAX_LISTENERS.saturating_sub(self.ended.len());
        self.ended.extend(later.ended.into_iter().take(room));
        let room = MAX_DEATHS.saturating_sub(self.deaths.len());
        self.deaths.extend(later.deaths.into_iter().take(room));
        let room = MAX_LISTENERS.saturating_sub(self.listeners_closed.len());
        self.listeners_closed.extend(later.listeners_closed.into_iter().take(room));
    }
}

/// Something that the stream could not contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `tcp/tcp_receive_reset`, `sock/inet_sock_set_state`, `kallsyms`, ...
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Sent,
    Received,
}

/// One RST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetEvent {
    /// CLOCK_BOOTTIME, as `Moment::mono`.
    pub at: Duration,
    pub direction: Direction,
    /// Never an IPv4-mapped IPv6 address.
    pub local: SocketAddr,
    /// `None` where the kernel does not know it (a RST sent from a LISTEN socket prints 0.0.0.0:0).
    pub peer: Option<SocketAddr>,
    /// State of the socket when it sent or received the RST; for an active reset usually CLOSE already. For a received
    /// reset it is known from the transition that follows; FIN_WAIT2 and LAST_ACK stay `None`, because every normal
    /// close passes through them and watching them would cost each connection.
    pub state: Option<TcpState>,
    /// The state that the socket left for CLOSE just before it sent this RST, or because it received it; not known for
    /// FIN_WAIT2 and LAST_ACK.
    pub old_state: Option<TcpState>,
    /// Symbol of `enum sk_rst_reason` or `skb_drop_reason` without prefix, e.g. `TCP_ABORT_ON_CLOSE`; for answers to a
    /// segment kernel 6.10 and later, for active resets 6.12 and later.
    pub reason: Option<String>,
    /// The process (thread group) that caused it; `None` in softirq context, where the current task is whoever was
    /// interrupted, and for the idle task.
    pub task: Option<Task>,
    pub softirq: bool,
    /// Sent by the socket itself (tcp_send_active_reset) rather than in answer to a segment. False for received.
    pub active: bool,
    /// From which path it came, where kallsyms is readable; of an answer to a segment only where the kernel gives no reason.
    pub caller: Option<Caller>,
    /// The process was in do_exit(): it exited or was killed with the connection open. Known only with `caller`.
    pub exiting: bool,
    /// The network namespace of the socket, as far as the event tells.
    ///
    /// Decided from the first of these that applies:
    /// 1. No other namespace exists: that one.
    /// 2. Process context: the namespace of that process, from /proc or the side-band records. Not known where it does not have
    ///    the address and one under observation does: a process may hold sockets of a namespace that it is not in.
    /// 3. Softirq, local address not loopback: the only namespace under observation that has this address. An address that
    ///    none of them has tells nothing: a transparent proxy answers for addresses that are not its own. Wrong where a
    ///    namespace that is not observed has the same address.
    /// 4. Softirq, loopback address: the namespace of the current user task, because the loopback device delivers in the
    ///    context of the sender unless ksoftirqd took over. Not known for kernel threads, and for a socket that gives up by
    ///    itself: its timer runs in the context of anybody.
    /// 5. Softirq, unspecified address, as of a listener on 0.0.0.0: not known. The current task is whoever was interrupted.
    pub netns: Option<NetnsId>,
    /// sock_cookie, where the tracepoint carries it.
    pub cookie: Option<u64>,
}

impl ResetEvent {
    /// The connection's state before this reset ended it, where known.
    pub fn state_before(&self) -> Option<TcpState> {
        self.old_state.or(self.state.filter(|state| *state != TcpState::Close))
    }

    /// Not an answer to a segment that belongs to nothing here. A refused connect is one of those that do.
    pub fn ends_a_connection(&self) -> bool {
        // Of a kernel that gives no reason: tcp_reset() has closed the socket before it answers.
        let late_data = match self.reason.as_deref() {
            Some(reason) => reason == "TCP_ABORT_ON_DATA",
            None => self.state == Some(TcpState::Close),
        };
        self.active || self.direction == Direction::Received || late_data
    }

    /// Both ends are of one namespace, as far as the addresses tell.
    fn on_loopback(&self) -> bool {
        self.peer.is_some_and(|peer| peer.ip().is_loopback() || peer.ip() == self.local.ip())
    }
}

/// The kernel path that sent a reset: the most telling of these functions in its call chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// inet_csk_listen_stop(): a listener went away with connections in its accept queue.
    ListenerStop,
    /// tcp_abort(): SOCK_DESTROY (`ss -K`) or bpf_sock_destroy().
    Destroy,
    /// __tcp_close(): close(2), or the exit of the last process that held the socket.
    Close,
    /// The same through tcp_disconnect(): SO_LINGER with a time of 0.
    Linger,
    /// tcp_disconnect() called for the socket itself: connect(AF_UNSPEC).
    Disconnect,
    /// MPTCP reset a subflow.
    Mptcp,
    /// tcp_keepalive_timer().
    KeepaliveTimer,
    /// tcp_write_timer(), for want of memory or of room for orphans.
    WriteTimer,
    /// tcp_check_req(): an answer to a segment for a half-open request.
    CheckRequest,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    pub pid: u32,
    /// comm of the process, at most 15 bytes; empty when it was not seen. Escape it before printing.
    pub name: String,
}

impl Task {
    /// `nginx (pid 4121)`; text from outside, not escaped.
    pub fn label(&self) -> String {
        words::process(&self.name, self.pid)
    }
}

/// A listener that stopped listening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerClosed {
    /// CLOCK_BOOTTIME.
    pub at: Duration,
    pub local: SocketAddr,
    pub task: Option<Task>,
    pub netns: Option<NetnsId>,
}
