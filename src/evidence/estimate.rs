//! What the counters say about resets where single events are not known. One place, because the ledger and the causes
//! must take the same numbers from the same look-alikes.

use crate::attribution::{Ends, GoneListener};
use crate::evidence::readings::Readings;
use crate::value::Missing;

/// RSTs and aborts of the window by counter. The exact ones are named after the counter; the others are estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Tcp.OutRsts.
    pub sent: u64,
    /// TCPAbortOnClose: closed with unread data, exact.
    pub unread: u64,
    /// TCPAbortOnData: linger 0, or data that met FIN_WAIT1 or FIN_WAIT2.
    pub on_data: u64,
    /// TCPAbortOnMemory, exact.
    pub memory: u64,
    /// TCPAbortOnLinger, exact.
    pub linger_timeout: u64,
    /// Keepalive that gave up, at most.
    pub keepalive: u64,
    /// Other timers that gave up, without a RST; connects included.
    pub silent_timeouts: u64,
    /// Of `silent_timeouts`: connects that nobody answered, at most.
    pub connect_timeouts: u64,
    /// Our connects that were refused: AttemptFails less the peers' resets and our timeouts.
    pub refused_connects: u64,
    /// Of `refused_connects`: answered by this very host, at most.
    pub refused_here: u64,
    /// Final ACKs that a full accept queue answered with a RST.
    pub accept_queue: u64,
    /// Connections that a closing listener took along, at most.
    pub listener_closed: u64,
    /// Sent RSTs that none of these accounts for.
    pub rest: u64,
    /// Resets received in open connections: EstabResets less own aborts and timeouts. EstabResets has no direction and
    /// counts both ends of a connection within this host (net/ipv4/tcp.c tcp_set_state).
    pub received: u64,
    /// Open connections that this host ended itself, by the same counters.
    pub own: u64,
}

impl Estimate {
    /// `None` where the counters of connections that end were not read.
    pub fn ends(&self, e: &Readings<'_>) -> Option<Ends> {
        let resets =
            e.counter("Tcp.EstabResets").and_then(|resets| e.counter("Tcp.AttemptFails").map(|_| resets.delta));
        resets.ok().map(|resets| Ends { resets, own: self.own, refused: self.refused_connects })
    }
}

/// Draws the estimate up.
///
/// # Errors
/// Without OutRsts nothing can be said.
pub fn estimate(e: &Readings<'_>, gone: &[GoneListener<'_>]) -> Result<Estimate, Missing> {
    let sent = e.counter("Tcp.OutRsts")?.delta;
    let mut rest = sent;
    let mut take = |wanted: u64| {
        let got = wanted.min(rest);
        rest -= got;
        got
    };
    let unread = take(e.moved("TcpExt.TCPAbortOnClose"));
    let memory = take(e.moved("TcpExt.TCPAbortOnMemory"));
    let linger_timeout = take(e.moved("TcpExt.TCPAbortOnLinger"));
    let on_data = take(e.moved("TcpExt.TCPAbortOnData"));
    let timeouts = e.moved("TcpExt.TCPAbortOnTimeout");
    // Of the timers that give up only tcp_keepalive_timer sends a RST (net/ipv4/tcp_timer.c). It counts TCPKeepAlive with each
    // probe, the last one tcp_keepalive_intvl before, which may be before the window. The retransmission timer counts
    // TCPTimeouts each time it expires.
    let may_be_keepalive = match e.moved("TcpExt.TCPKeepAlive") {
        0 => timeouts.saturating_sub(e.moved("TcpExt.TCPTimeouts")),
        _ => timeouts,
    };
    let keepalive = take(may_be_keepalive);
    let embryonic = e.moved("TcpExt.EmbryonicRsts");
    let abort_on_overflow = e.sysctl_number("net.ipv4.tcp_abort_on_overflow") == Ok(1);
    let accept_queue = if abort_on_overflow { take(embryonic.min(e.moved("TcpExt.ListenOverflows"))) } else { 0 };
    // A reset half-open request counts in both; the RST for a full accept queue only in EmbryonicRsts.
    let failed = e.moved("Tcp.AttemptFails").saturating_sub(embryonic - accept_queue);
    let silent_timeouts = timeouts - keepalive;
    let connect_timeouts = failed.min(silent_timeouts);
    let refused_connects = failed - connect_timeouts;
    let refused_here = take(refused_connects);
    let queued: u64 = gone.iter().map(|gone| u64::from(gone.trace.max_recv_q)).sum();
    let listener_closed = take(queued);
    let own = unread + on_data + memory + timeouts + listener_closed;
    let received = e.moved("Tcp.EstabResets").saturating_sub(own);
    Ok(Estimate {
        sent,
        unread,
        on_data,
        memory,
        linger_timeout,
        keepalive,
        silent_timeouts,
        connect_timeouts,
        refused_connects,
        refused_here,
        accept_queue,
        listener_closed,
        rest,
        received,
        own,
    })
}
