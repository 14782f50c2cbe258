//! The sources of evidence that causes declare as needed, so that one who cannot be told something hears at once of all that is
//! missing for it.

use crate::evidence::Evidence;
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
    /// Why this source says nothing; `None` if it does.
    pub fn missing(self, e: &Evidence<'_>) -> Option<Missing> {
        match self {
            Self::Window => e.window_missing(),
            Self::Netstat => e.unread(|snapshot| &snapshot.netstat, "netstat"),
            Self::Snmp => e.unread(|snapshot| &snapshot.snmp, "snmp"),
            Self::Sockstat => e.unread(|snapshot| &snapshot.sockstat, "sockstat"),
            Self::Listeners => e.services().err(),
            Self::Sockets => e.socket_dump().err(),
            Self::Owners => e.owners().err(),
            Self::ResetEvents => e.reset_events().err(),
            Self::ResetPackets => e.wire().err(),
            Self::Conntrack => e.conntrack().err(),
        }
    }
}
