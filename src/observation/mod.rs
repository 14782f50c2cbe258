//! One instant of a host, and the window between two of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::source::conntrack::Conntrack;
use crate::source::counters::Counters;
use crate::source::destroyed_sockets::DestroyedSockets;
use crate::source::host_facts::HostFacts;
use crate::source::listeners::Listener;
use crate::source::owners::Owners;
use crate::source::reset_events::{ResetEvent, ResetEvents};
use crate::source::reset_packets::ResetPackets;
use crate::source::socket_dump::SocketDump;
use crate::value::{Failure, Moment, NetnsId, Observed};

pub mod delta;
#[cfg(test)]
pub(crate) mod testing;

/// Everything known about one instant. Each source is observed or says why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The network namespace that it is of.
    pub netns: NetnsId,
    /// When the counters were read.
    pub at: Moment,
    /// When the sockets, their owners and the sysctls were looked at: with a scan just before or after the counters, with
    /// a live view at its latest sweep.
    pub dumped: Moment,
    pub netstat: Observed<Counters>,
    pub snmp: Observed<Counters>,
    pub snmp6: Observed<Counters>,
    pub sockstat: Observed<Counters>,
    pub sockstat6: Observed<Counters>,
    pub vmstat: Observed<Counters>,
    /// `fs.file-nr`: `allocated` and `max` open files of the whole host.
    pub file_nr: Observed<Counters>,
    /// Sysctl name as sysctl(8) spells it (`net.core.somaxconn`) to its text, trimmed.
    pub sysctls: BTreeMap<&'static str, Observed<String>>,
    pub conntrack: Observed<Conntrack>,
    pub listeners: Observed<Vec<Listener>>,
    /// Shared by the snapshots of a live view between two sweeps.
    pub socket_dump: Observed<Arc<SocketDump>>,
    pub owners: Observed<Arc<Owners>>,
    pub host: HostFacts,
    /// How each source went, in the order asked.
    pub sources: Vec<SourceStatus>,
}

/// How one source went.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceStatus {
    pub name: &'static str,
    pub failure: Option<Failure>,
    /// The failure took only a part of the source.
    pub partial: bool,
    pub took: Duration,
}

/// A window: two snapshots and what was seen between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub before: Snapshot,
    pub after: Snapshot,
    /// One entry per listener that was seen in any poll, by cookie.
    pub listener_traces: BTreeMap<u64, ListenerTrace>,
    /// Number of looks at the listeners, both snapshots included.
    pub polls: u32,
    /// Single resets from the tracepoints.
    pub reset_events: Observed<ResetEvents>,
    /// Resets shortly before the window, in a live view: the packet or the last words of one may come with the next window.
    /// They count for nothing here.
    pub earlier_resets: Vec<ResetEvent>,
    /// RST packets on the interfaces.
    pub reset_packets: Observed<ResetPackets>,
    /// Connections that were destroyed.
    pub destroyed_sockets: Observed<DestroyedSockets>,
    /// Only totals since boot were asked for (`--duration 0s`): no delta means anything.
    pub totals_only: bool,
}

/// One listener over the polls of a window, the two snapshots included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTrace {
    /// As seen last.
    pub last: Listener,
    /// As seen first.
    pub first: Listener,
    pub samples: u32,
    /// Samples in which the accept queue was full.
    pub full_samples: u32,
    pub max_recv_q: u32,
    /// How often the accept queue was shorter than in the sample before: accept() ran.
    pub drained: u32,
    /// It was there in the first snapshot.
    pub in_before: bool,
    /// It was there in the last snapshot.
    pub in_after: bool,
    /// Sample number (0-based) in which it was seen first and last.
    pub first_sample: u32,
    pub last_sample: u32,
}

impl Observation {
    /// Length of the window, without suspend.
    pub fn duration(&self) -> Duration {
        self.after.at.awake_since(self.before.at)
    }
}

#[cfg(test)]
mod tests {
    use crate::observation::testing::Case;
    use std::time::Duration;

    /// 200 losses in 2 s awake are 100 per second, however long the machine slept in between.
    #[test]
    fn suspend_is_no_part_of_a_window() {
        let mut observation = Case::new().0;
        let awake = observation.duration();
        observation.after.at.mono += Duration::from_secs(300);
        observation.after.at.asleep += Duration::from_secs(300);
        assert_eq!(observation.duration(), awake);
        // Clocks that are read one after the other differ a little.
        observation.after.at.asleep += Duration::from_nanos(80);
        observation.before.at.asleep += Duration::from_secs(300);
        assert_eq!(observation.duration(), awake + Duration::from_secs(300));
    }
}
