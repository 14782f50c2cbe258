//! A window: two snapshots and what was seen between them, of the host and of each network namespace that was looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::Flows;
use crate::reset::{Ending, JoinedError, Mark, Reset};
use crate::source::conntrack::Conntrack;
use crate::source::counters::CounterSet;
use crate::source::host_facts::HostFacts;
use crate::source::listeners::Listener;
use crate::source::node::Node;
use crate::source::owners::Owners;
use crate::source::reset_events::{EventAccount, ResetTally};
use crate::source::reset_packets::PacketAccount;
use crate::source::socket_dump::SocketDump;
use crate::value::{Failure, Moment, NetnsId, Observed};

pub mod delta;
mod sources;
#[cfg(test)]
pub(crate) mod testing;

/// What was observed in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub host: HostWindow,
    pub netns: BTreeMap<NetnsId, NetnsWindow>,
    /// What this kind of input can show at all.
    pub covers: Covers,
}

/// What the input of an observation can show at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Covers {
    pub input: Input,
    /// How the input itself went, where it is a source of its own, or a part of it is missing: a recording that was cut off.
    pub status: Option<SourceStatus>,
    /// The connections that a capture holds; `None` where the input is none.
    pub flows: Option<Arc<Flows>>,
    /// A capture of the other end of this host's connections.
    pub other_end: Option<Arc<Flows>>,
    /// What a text says of causes, the likeliest first.
    pub hints: Vec<Hint>,
}

/// What a text says of a cause: that it happened, and neither when nor how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub id: &'static str,
    pub reason: String,
    /// The first of many that its line may mean, and nothing else in the text speaks for it.
    pub among_many: bool,
    /// A line of a log says so itself: it is not one of several that the line may mean.
    pub stated: bool,
    /// When, as the text itself says it.
    pub when: Option<String>,
    /// What to change.
    pub change: String,
}

/// Which kind of input an observation comes from, and so which sources it can ever have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Input {
    /// A running kernel, now.
    #[default]
    Live,
    /// What a running kernel answered earlier: whatever was recorded of the same sources.
    Recording,
    /// The same, as a recorder kept it of some time.
    Store,
    /// Packets as they passed an interface: nothing of the hosts but what they sent.
    Capture,
    /// What somebody printed or logged: single sources, as far as they were printed.
    Text,
}

/// The host's part of a window: what is the same whichever namespace asks.
#[derive(Debug, Clone, PartialEq)]
pub struct HostWindow {
    pub before: HostSnapshot,
    pub after: HostSnapshot,
    /// Who held sockets at looks between the two, where a recording has some: who came and went within the window.
    pub between: Option<Arc<Owners>>,
    /// The account of the reset events, which are those of the whole host.
    pub reset_events: Observed<EventAccount>,
    /// The network namespaces and containers of the node, at the end of the window and those of its begin that are gone.
    pub node: Observed<Arc<Node>>,
    /// Only totals since boot were asked for (`--duration 0s`): no delta means anything.
    pub totals_only: bool,
}

/// Everything host-wide known about one instant. Each source is observed or says why not.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSnapshot {
    /// When the counters were read.
    pub at: Moment,
    /// Those of the host: /proc/vmstat, open files.
    pub counters: CounterSet,
    /// As [`Snapshot::sysctls`], those of the whole host.
    pub sysctls: BTreeMap<&'static str, Observed<String>>,
    /// Shared by the snapshots of a live view between two sweeps.
    pub owners: Observed<Arc<Owners>>,
    pub facts: HostFacts,
    /// How each source went, in the order asked.
    pub sources: Vec<SourceStatus>,
}

/// One namespace's part of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct NetnsWindow {
    /// As `ip netns` names it, where it was found by that name.
    pub name: Option<String>,
    /// At the end of the window nothing led to it any more: its processes ended and no name or mount holds it.
    pub gone: bool,
    /// It was not there yet when the window before this one ended.
    pub came: bool,
    pub before: Snapshot,
    pub after: Snapshot,
    /// One entry per listener that was seen in any poll, by cookie.
    pub listener_traces: BTreeMap<u64, ListenerTrace>,
    pub resets: Resets,
    /// The account of the RST packets on the interfaces.
    pub reset_packets: Observed<PacketAccount>,
    /// Connections that were destroyed.
    pub endings: Observed<Endings>,
    /// Errors that programs got on their connections.
    pub errors: Observed<SocketErrors>,
}

/// Everything known about one instant of a network namespace. Each source is observed or says why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The network namespace that it is of.
    pub netns: NetnsId,
    /// When the counters were read.
    pub at: Moment,
    /// When the sockets, their owners and the sysctls were looked at: with a scan just before or after the counters, with
    /// a live view at its latest sweep.
    pub dumped: Moment,
    /// Those of the namespace: netstat, snmp, sockstat, ...
    pub counters: CounterSet,
    /// Sysctl name as sysctl(8) spells it (`net.core.somaxconn`) to its text, trimmed.
    pub sysctls: BTreeMap<&'static str, Observed<String>>,
    pub conntrack: Observed<Conntrack>,
    pub listeners: Observed<Vec<Listener>>,
    /// Shared by the snapshots of a live view between two sweeps.
    pub socket_dump: Observed<Arc<SocketDump>>,
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
    /// What it lacks although it went well, or by which way it was reached.
    pub note: Option<String>,
    pub took: Duration,
}

/// The RSTs of a window, those included whose namespace is not known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resets {
    /// Each by itself, in order of time, capped.
    pub single: Vec<Reset>,
    /// Those over the cap that have an event, in groups; the counts are exact.
    pub grouped: Vec<(Mark, ResetTally)>,
    /// Packets without an event that found no room, or may be of an event that was handed out without its packet.
    pub packets_dropped: u64,
}

/// The connections that were destroyed in a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endings {
    /// In order of arrival, capped; `dropped` counts those over the cap.
    pub endings: Vec<Ending>,
    pub dropped: u64,
    /// How often the kernel had no room: each time an unknown number is missing.
    pub gaps: u64,
    /// The collection ended before the window did, because listening costs the kernel time for each destroyed socket.
    pub ended_early: Option<String>,
}

/// What programs were told of their connections in a window: resets, and failures without one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketErrors {
    /// In order of time, capped; `dropped` counts those over the cap.
    pub errors: Vec<JoinedError>,
    pub dropped: u64,
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
    /// Sample number (0-based) in which it was seen last.
    pub last_sample: u32,
}

/// What a diagnosis sees: the host, and one of its namespaces.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub host: &'a HostWindow,
    pub netns: &'a NetnsWindow,
    pub covers: &'a Covers,
}

impl Observation {
    /// What there is of the namespace of the one who looked or, where that is not among them, of the first; there is always one.
    pub fn view(&self) -> Option<View<'_>> {
        let own = self.host.node.value().and_then(|node| node.own);
        own.and_then(|own| self.view_of(own)).or_else(|| self.views().next())
    }

    /// What there is of that namespace.
    pub fn view_of(&self, id: NetnsId) -> Option<View<'_>> {
        self.netns.get(&id).map(|netns| View { host: &self.host, netns, covers: &self.covers })
    }

    /// What there is of each namespace, in the order of their inodes.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.netns.values().map(|netns| View { host: &self.host, netns, covers: &self.covers })
    }
}

impl Resets {
    /// Leaves out those of which nobody knows the namespace and that happened before `until`: where no segment came or went, and
    /// none was counted, they are of another one.
    pub fn without_strangers(&mut self, until: Duration) {
        self.single.retain(|reset| reset.netns().is_some() || reset.at() >= until);
        self.grouped.retain(|(_, tally)| tally.netns.is_some());
    }
}

impl NetnsWindow {
    /// Nothing happened in it: its counters are those of before, no reset, packet, ended connection or error was seen, and
    /// nothing waited in a queue.
    pub fn is_idle(&self) -> bool {
        let resets = &self.resets;
        let still = |trace: &ListenerTrace| trace.in_before && trace.in_after && trace.max_recv_q == 0;
        !self.gone
            && !self.came
            && self.after.counters.is_carried(&self.before.counters)
            && resets.single.is_empty()
            && resets.grouped.is_empty()
            && resets.packets_dropped == 0
            && self.reset_packets.value().is_none_or(PacketAccount::is_empty)
            && self.endings.value().is_none_or(|endings| *endings == Endings::default())
            && self.errors.value().is_none_or(|errors| *errors == SocketErrors::default())
            && self.listener_traces.values().all(still)
    }
}

impl<'a> View<'a> {
    pub fn before(self) -> &'a Snapshot {
        &self.netns.before
    }

    pub fn after(self) -> &'a Snapshot {
        &self.netns.after
    }

    /// Length of the window, without suspend.
    pub fn duration(self) -> Duration {
        self.netns.after.at.awake_since(self.netns.before.at)
    }
}

#[cfg(test)]
mod tests {
    use crate::observation::testing::Case;
    use std::time::Duration;

    /// 200 losses in 2 s awake are 100 per second, however long the machine slept in between.
    #[test]
    fn suspend_is_no_part_of_a_window() {
        let mut case = Case::new();
        let awake = case.view().duration();
        case.netns.after.at.mono += Duration::from_secs(300);
        case.netns.after.at.asleep += Duration::from_secs(300);
        assert_eq!(case.view().duration(), awake);
        // Clocks that are read one after the other differ a little.
        case.netns.after.at.asleep += Duration::from_nanos(80);
        case.netns.before.at.asleep += Duration::from_secs(300);
        assert_eq!(case.view().duration(), awake + Duration::from_secs(300));
    }
}
