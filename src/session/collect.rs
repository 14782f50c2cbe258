//! Fills a snapshot: which sources are asked, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::looks::Looks;
use crate::ask::Probe;
use crate::observation::{Snapshot, SourceStatus};
use crate::source::listeners::{self, Listener};
use crate::source::socket_dump::{self, SocketDump};
use crate::source::{conntrack, file_nr, host_facts, netstat, owners, snmp, snmp6, sockstat, sysctl, vmstat};
use crate::value::{Moment, NetnsId, Observed};

impl Snapshot {
    pub(super) fn empty(netns: NetnsId, at: Moment) -> Self {
        Self {
            netns,
            at,
            dumped: at,
            netstat: Observed::not_asked(),
            snmp: Observed::not_asked(),
            snmp6: Observed::not_asked(),
            sockstat: Observed::not_asked(),
            sockstat6: Observed::not_asked(),
            vmstat: Observed::not_asked(),
            file_nr: Observed::not_asked(),
            sysctls: BTreeMap::new(),
            conntrack: Observed::not_asked(),
            listeners: Observed::not_asked(),
            socket_dump: Observed::not_asked(),
            owners: Observed::not_asked(),
            host: host_facts::HostFacts::default(),
            sources: Vec::new(),
        }
    }

    /// Keeps the value and notes how the source went.
    fn keep<T>(&mut self, name: &'static str, (observed, took): (Observed<T>, Duration)) -> Observed<T> {
        let status = SourceStatus {
            name,
            failure: observed.failure().cloned(),
            partial: matches!(observed, Observed::Partial(..)),
            took,
        };
        match self.sources.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = status,
            None => self.sources.push(status),
        }
        observed
    }

    pub(super) fn counters(&mut self, probe: &mut dyn Probe) {
        let netns = self.netns;
        self.snmp6 = self.keep("snmp6", snmp6::collect(probe, netns));
        self.sockstat = self.keep("sockstat", sockstat::collect(probe, netns));
        self.sockstat6 = self.keep("sockstat6", sockstat::collect6(probe, netns));
        self.conntrack = self.keep("conntrack", conntrack::collect(probe, netns));
        self.vmstat = self.keep("vmstat", vmstat::collect(probe));
        self.file_nr = self.keep("file_nr", file_nr::collect(probe));
        // Last, next to the streams that are read after them: what comes between belongs to two windows.
        self.netstat = self.keep("netstat", netstat::collect(probe, netns));
        self.snmp = self.keep("snmp", snmp::collect(probe, netns));
    }

    pub(super) fn listeners(&mut self, probe: &mut dyn Probe, looks: &mut Looks) {
        self.listeners = self.keep("listeners", listeners::collect(probe, self.netns));
        if let Some(listening) = self.listeners.value() {
            looks.look(listening);
        }
    }

    /// The sweep of all sockets, and the owners of the listeners in `seen` and of the sockets that a cause may want to
    /// name. `also`: processes whose state is wanted whatever they hold now.
    pub(super) fn sockets<'a>(
        &mut self,
        probe: &mut dyn Probe,
        seen: impl Iterator<Item = &'a Listener>,
        also: &BTreeSet<u32>,
    ) {
        let listening = self.listeners.value().cloned().unwrap_or_default();
        self.socket_dump = self.keep("sockets", socket_dump::collect(probe, self.netns, &listening)).map(Arc::new);
        let listening = listening.iter().map(|listener| listener.inode).chain(seen.map(|listener| listener.inode));
        let inodes = inodes(listening, self.socket_dump.value().map(Arc::as_ref));
        self.owners = self.keep("owners", owners::collect(probe, inodes, also.clone())).map(Arc::new);
    }

    /// Settings and identity, which seldom move.
    pub(super) fn context(&mut self, probe: &mut dyn Probe) {
        let (sysctls, took) = sysctl::collect(probe, self.netns);
        let missing = sysctls.values().all(|value| value.value().is_none());
        let status: Observed<()> = match sysctls.values().find_map(Observed::failure) {
            Some(failure) if missing => Observed::Unavailable(failure.clone()),
            _ => Observed::Full(()),
        };
        self.keep("sysctl", (status, took));
        self.sysctls = sysctls;
        let facts = self.keep("host", host_facts::collect(probe));
        self.host = facts.value().cloned().unwrap_or_default();
    }

    /// Processes that held something that was looked up.
    pub(super) fn known_processes(&self) -> BTreeSet<u32> {
        self.owners.value().map(|owners| owners.processes.keys().copied().collect()).unwrap_or_default()
    }
}

/// Sockets whose owners are worth a look: every listener of the window and the samples of the sweep.
fn inodes(listeners: impl Iterator<Item = u32>, socket_dump: Option<&SocketDump>) -> BTreeSet<u64> {
    let sampled = socket_dump.into_iter().flat_map(|socket_dump| {
        let groups = socket_dump.groups.iter().flat_map(|group| group.samples.iter().map(|sample| sample.inode));
        let destinations = socket_dump.destinations.iter().flat_map(|destination| destination.inodes.iter().copied());
        groups.chain(destinations)
    });
    // Inode 0 is a socket without a process: TIME_WAIT, an orphan, a half-open request.
    listeners.chain(sampled).filter(|inode| *inode != 0).map(u64::from).collect()
}
