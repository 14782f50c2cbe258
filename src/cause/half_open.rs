//! What the kernel shows of half-open connections, for the two causes that differ only in who opened them.
//!
//! When the SYN queue of a listener is full (net/ipv4/tcp_input.c tcp_conn_request, inet_csk_reqsk_queue_is_full), the
//! kernel answers with a cookie (`TCPReqQFullDoCookies`) or drops the SYN (`TCPReqQFullDrop`).

use std::time::Duration;

use super::numbers::{Confidence, half_open as numbers};
use super::{EvidenceItem, queue};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::value::{Missing, TcpState, words};

/// Half-open connections of one window.
pub struct HalfOpen<'e, 'a> {
    /// SYNs that met a full SYN queue and were answered with a cookie, or would have been.
    pub cookies_wanted: u64,
    /// SYNs that met a full SYN queue and were dropped.
    pub dropped: u64,
    /// Those among `dropped` that only ListenDrops shows.
    uncounted: u64,
    /// Cookies sent, and those that came back in a final ACK.
    pub sent: u64,
    pub returned: u64,
    /// The listener with the most half-open requests.
    pub worst: Option<&'e Service<'a>>,
    /// Half-open requests of `worst`, how many were retransmitted, and from how many peers.
    pub requests: u64,
    pub retransmitted: u64,
    pub peers: u64,
    /// The sweep was possible; without it the three numbers above are unknown.
    pub swept: bool,
    pub backlog: u64,
    window: Duration,
    /// The accept queue of `worst` was full too, so that requests linger for that reason.
    pub accept_queue_full: bool,
}

/// Who opened them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Who {
    /// Handshakes complete, or nothing says that they do not.
    Clients,
    /// Handshakes do not complete; with this probability.
    Nobody(Confidence),
    /// Neither is clear.
    Unclear,
}

/// TCP_TIMEOUT_INIT, include/net/tcp.h; RFC 6298 2.1.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

impl<'e, 'a> HalfOpen<'e, 'a> {
    pub fn look(e: &'e Evidence<'a>) -> Result<Self, Missing> {
        let cookies_wanted = e.counter("TcpExt.TCPReqQFullDoCookies")?.delta;
        let dropped = e.counter("TcpExt.TCPReqQFullDrop")?.delta;
        // A kernel without CONFIG_SYN_COOKIES lists these counters and never moves them.
        let (sent, returned) = (e.counter("TcpExt.SyncookiesSent")?.delta, e.counter("TcpExt.SyncookiesRecv")?.delta);
        let half_open = |service: &Service<'_>| {
            service.port_use.and_then(|used| used.by_state.get(&TcpState::SynRecv)).copied().unwrap_or(0)
        };
        let worst = e
            .services()
            .ok()
            .and_then(|services| services.iter().filter(|s| half_open(s) > 0).max_by_key(|service| half_open(service)));
        let port_use = worst.and_then(|service| service.port_use);
        let uncounted = uncounted_drops(e, worst.map_or(0, half_open), dropped);
        Ok(Self {
            cookies_wanted,
            dropped: dropped + uncounted,
            uncounted,
            sent,
            returned,
            worst,
            requests: worst.map_or(0, half_open),
            retransmitted: port_use.map_or(0, |used| used.syn_recv_retransmitted),
            peers: port_use.map_or(0, |used| used.syn_recv_peers),
            swept: e.socket_dump().is_ok(),
            backlog: worst.map_or(0, |s| s.sockets.iter().map(|socket| u64::from(socket.last.backlog)).sum()),
            window: e.window(),
            accept_queue_full: worst.is_some_and(|service| service.worst().full_samples > 0),
        })
    }

    /// A SYN met a full SYN queue in this window. With tcp_syncookies=2 every SYN is answered with a cookie and counted the
    /// same way, whatever the queue.
    pub fn overflowed(&self, e: &Evidence<'_>) -> bool {
        self.dropped > 0 || (self.cookies_wanted > 0 && e.sysctl_number("net.ipv4.tcp_syncookies") != Ok(2))
    }

    /// The SYN queue of the worst listener is still (nearly) full at the end of the window.
    pub fn full_now(&self) -> bool {
        self.backlog > 0 && self.requests * 10 >= self.backlog * 8
    }

    /// Share of the cookies that came back; `None` when too few were sent to tell.
    pub fn completed(&self) -> Option<f64> {
        (self.sent >= numbers::ENOUGH).then(|| self.returned as f64 / self.sent as f64)
    }

    /// Share of the half-open requests whose SYN-ACK had to be sent again; `None` when there are too few to tell.
    pub fn lingering(&self) -> Option<f64> {
        (self.requests >= numbers::ENOUGH).then(|| self.retransmitted as f64 / self.requests as f64)
    }

    /// Judges who opened them. A real client answers within one round trip, so its request is rarely retransmitted and
    /// its cookie comes back once, or less often when its SYN was sent again.
    pub fn who(&self) -> Who {
        if self.accept_queue_full {
            // The final ACKs are ignored while the accept queue is full: everything lingers, and no cookie counts.
            return Who::Clients;
        }
        let lingering = self.lingering();
        match self.completed() {
            Some(share) if share < numbers::NONE_RETURNED => match lingering {
                Some(share) if share >= numbers::HALF_LINGER => Who::Nobody(numbers::NO_COOKIE_AND_LINGERING),
                _ => Who::Nobody(numbers::NO_COOKIE),
            },
            Some(share) if share < numbers::FEW_RETURNED => match lingering {
                Some(share) if share >= numbers::MOST_LINGER => Who::Nobody(numbers::FEW_COOKIES),
                _ => Who::Unclear,
            },
            Some(_) => Who::Clients,
            None => match lingering {
                Some(share) if share >= numbers::MOST_LINGER => Who::Nobody(numbers::LINGERING),
                Some(share) if share >= numbers::MANY_LINGER => Who::Unclear,
                // What nobody answers is retransmitted after a second for the first time.
                Some(_) if self.window < 2 * FIRST_TIMEOUT => Who::Unclear,
                Some(_) => Who::Clients,
                None if self.requests == 0 && !self.swept => Who::Unclear,
                None => Who::Clients,
            },
        }
    }

    /// What both causes show: the counters, the queue, the cookies.
    pub fn evidence(&self, e: &Evidence<'_>) -> Vec<EvidenceItem> {
        let mut items = Vec::new();
        for (metric, what) in [
            ("TcpExt.TCPReqQFullDrop", "SYNs dropped at a full SYN queue"),
            ("TcpExt.TCPReqQFullDoCookies", "SYNs met a full SYN queue (answered by cookie)"),
        ] {
            if let Ok(reading) = e.counter(metric)
                && reading.delta > 0
            {
                let name = metric.trim_start_matches("TcpExt.");
                let text = format!("{name} +{}: {what}", words::thousands(reading.delta));
                items.push(EvidenceItem::counter(&reading, text));
            }
        }
        if self.uncounted > 0
            && let Ok(drops) = e.counter("TcpExt.ListenDrops")
        {
            let text = format!(
                "{} SYNs dropped: SYN queue near tcp_max_syn_backlog, no cookies",
                words::thousands(self.uncounted)
            );
            items.push(EvidenceItem::counter(&drops, text));
        }
        if let Ok(sent) = e.counter("TcpExt.SyncookiesSent")
            && self.sent > 0
        {
            let text = format!(
                "{} sent, {} came back (a client can send the same one again)",
                words::counted(self.sent, "cookie"),
                words::thousands(self.returned)
            );
            items.push(EvidenceItem::counter(&sent, text));
        }
        if self.requests > 0 {
            let text = format!(
                "{} half-open (backlog {}), {} retransmitted, {}{}",
                words::thousands(self.requests),
                words::thousands(self.backlog),
                words::thousands(self.retransmitted),
                words::counted(self.peers, "peer"),
                if self.peers >= 1024 { " or more" } else { "" },
            );
            items.push(EvidenceItem::value("sockets", "syn_recv", self.requests as f64, text));
        }
        if let Some(service) = self.worst.filter(|_| self.accept_queue_full) {
            items.push(queue::length(service));
        }
        items
    }
}

/// With tcp_syncookies=0 the kernel also drops SYNs of peers that it does not know once less than a quarter of
/// tcp_max_syn_backlog is left (tcp_conn_request); only ListenDrops counts them.
fn uncounted_drops(e: &Evidence<'_>, requests: u64, counted: u64) -> u64 {
    let near = e.sysctl_number("net.ipv4.tcp_max_syn_backlog").is_ok_and(|most| requests * 10 >= most * 7);
    if !near || e.sysctl_number("net.ipv4.tcp_syncookies") != Ok(0) {
        return 0;
    }
    e.moved("TcpExt.ListenDrops").saturating_sub(e.moved("TcpExt.ListenOverflows")).saturating_sub(counted)
}
