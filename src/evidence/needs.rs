//! The sources of evidence that causes declare as needed, so that one who cannot be told something hears at once of all that is
//! missing for it.

use crate::evidence::Evidence;
use crate::source::host_facts::needed;
use crate::source::{netstat, snmp, sockstat};
use crate::value::Missing;

/// Where evidence comes from, by the names that a report uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A window between two looks, not totals since boot.
    Window,
    /// /proc/net/netstat.
    Netstat,
    /// /proc/net/snmp.
    Snmp,
    /// /proc/net/sockstat.
    Sockstat,
    /// Listeners and their queues, by sock_diag.
    Listeners,
    /// The dump of all sockets, by sock_diag.
    Sockets,
    /// Which processes hold sockets, from /proc/PID/fd.
    Owners,
    /// Single resets, from the tracepoints.
    ResetEvents,
    /// RST packets, from a packet socket.
    ResetPackets,
    /// Connection tracking.
    Conntrack,
}

impl Source {
    /// As a report names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Netstat => "netstat",
            Self::Snmp => "snmp",
            Self::Sockstat => "sockstat",
            Self::Listeners => "listeners",
            Self::Sockets => "sockets",
            Self::Owners => "owners",
            Self::ResetEvents => "reset_events",
            Self::ResetPackets => "reset_packets",
            Self::Conntrack => "conntrack",
        }
    }

    /// What it is, for people.
    pub fn what(self) -> &'static str {
        match self {
            Self::Window => "two looks with a window between them, not totals since boot",
            Self::Netstat => "the counters of /proc/net/netstat",
            Self::Snmp => "the counters of /proc/net/snmp",
            Self::Sockstat => "the gauges of /proc/net/sockstat",
            Self::Listeners => "listeners and their queues, by sock_diag",
            Self::Sockets => "the dump of all sockets, by sock_diag",
            Self::Owners => "which processes hold sockets, from /proc/PID/fd",
            Self::ResetEvents => "single resets, from tracepoints",
            Self::ResetPackets => "RST packets, from a packet socket",
            Self::Conntrack => "connection tracking",
        }
    }

    /// Why this source says nothing; `None` if it does.
    pub fn missing(self, e: &Evidence<'_>) -> Option<Missing> {
        match self {
            Self::Window => e.window_missing(),
            Self::Netstat => e.unread(&netstat::FILE),
            Self::Snmp => e.unread(&snmp::FILE),
            Self::Sockstat => e.unread(&sockstat::FILE),
            Self::Listeners => e.services().err(),
            Self::Sockets => e.socket_dump().err(),
            Self::Owners => e.owners().err(),
            Self::ResetEvents => e.reset_events().err(),
            Self::ResetPackets => e.wire().err(),
            Self::Conntrack => e.conntrack().err(),
        }
    }
}

impl Evidence<'_> {
    /// Why nothing can be said about now: only totals since boot were read, which hold every probe and scan since then.
    pub fn window_missing(&self) -> Option<Missing> {
        self.totals_only().then(|| Missing {
            source: "window",
            reason: "totals since boot do not say which resets were harmful".to_owned(),
            needs: Some("a window (rstdoctor scan --duration 3s)".to_owned()),
        })
    }

    /// Without a window nothing can be said about resets.
    ///
    /// # Errors
    /// When only totals since boot were read.
    pub fn require_window(&self) -> Result<(), Missing> {
        self.window_missing().map_or(Ok(()), Err)
    }

    /// What the observer lacks where this is refused; see [`HostFacts::is_root`](crate::source::host_facts::HostFacts::is_root).
    pub fn needs(&self, capability: &str) -> Option<String> {
        let facts = &self.host_after().facts;
        Some(needed(capability, facts.in_user_namespace, facts.uid == Some(0)))
    }

    /// A process that /proc does not show at all: with hidepid, or from another pid namespace. Nothing helps root of the host, for
    /// whom the kernel itself listens, or the process has ended.
    pub fn needs_all_processes(&self) -> Option<String> {
        (!self.host_after().facts.is_root()).then(|| "root in the host's pid namespace".to_owned())
    }
}
