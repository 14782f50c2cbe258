//! Fills a snapshot: which sources are asked, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::looks::Looks;
use crate::ask::{Probe, Scope};
use crate::observation::{HostSnapshot, Snapshot, SourceStatus};
use crate::source::counters::{CounterSet, Per};
use crate::source::listeners::{self, Listener};
use crate::source::socket_dump::{Destination, Group, GroupKind};
use crate::source::{COUNTER_FILES, conntrack, host_facts, owners, socket_dump, sysctl};
use crate::value::{Moment, NetnsId, Observed};

/// Notes how a source went, and hands its value on.
fn keep<T>(
    sources: &mut Vec<SourceStatus>,
    name: &'static str,
    (observed, took): (Observed<T>, Duration),
) -> Observed<T> {
    let failure = observed.failure().cloned();
    let status = SourceStatus { name, failure, partial: matches!(observed, Observed::Partial(..)), took };
    match sources.iter_mut().find(|known| known.name == name) {
        Some(known) => *known = status,
        None => sources.push(status),
    }
    observed
}

fn carry_sources(to: &mut Vec<SourceStatus>, from: &[SourceStatus], names: &[&str]) {
    to.retain(|source| !names.contains(&source.name));
    to.extend(from.iter().filter(|source| names.contains(&source.name)).cloned());
}

/// Reads every counter file of the host, or of a namespace.
fn read_all(counters: &mut CounterSet, sources: &mut Vec<SourceStatus>, probe: &mut dyn Probe, scope: Scope) {
    let per = if scope == Scope::Host { Per::Host } else { Per::Netns };
    for file in COUNTER_FILES.iter().filter(|file| file.per == per) {
        counters.insert(file, keep(sources, file.name, file.collect(probe, scope)));
    }
}

/// How a set of sysctls went: missing only where none could be read.
fn status(sysctls: &BTreeMap<&'static str, Observed<String>>) -> Observed<()> {
    let missing = sysctls.values().all(|value| value.value().is_none());
    match sysctls.values().find_map(Observed::failure) {
        Some(failure) if missing => Observed::Unavailable(failure.clone()),
        _ => Observed::Full(()),
    }
}

impl Snapshot {
    pub(super) fn empty(netns: NetnsId, at: Moment) -> Self {
        Self {
            netns,
            at,
            dumped: at,
            counters: CounterSet::default(),
            sysctls: BTreeMap::new(),
            conntrack: Observed::not_asked(),
            listeners: Observed::not_asked(),
            socket_dump: Observed::not_asked(),
            sources: Vec::new(),
        }
    }

    pub(super) fn counters(&mut self, probe: &mut dyn Probe) {
        let (netns, sources) = (self.netns, &mut self.sources);
        self.conntrack = keep(sources, "conntrack", conntrack::collect(probe, netns));
        read_all(&mut self.counters, sources, probe, Scope::Netns(netns));
    }

    pub(super) fn listeners(&mut self, probe: &mut dyn Probe, looks: &mut Looks) {
        self.listeners = keep(&mut self.sources, "listeners", listeners::collect(probe, self.netns));
        if let Some(listening) = self.listeners.value() {
            looks.look(listening);
        }
    }

    /// The dump of all sockets.
    pub(super) fn sockets(&mut self, probe: &mut dyn Probe) {
        let listening = self.listeners.value().map_or(&[][..], Vec::as_slice);
        let dump = socket_dump::collect(probe, self.netns, listening);
        self.socket_dump = keep(&mut self.sources, "sockets", dump).map(Arc::new);
    }

    /// Settings, which seldom move.
    pub(super) fn settings(&mut self, probe: &mut dyn Probe) {
        let (sysctls, took) = sysctl::collect(probe, self.netns);
        keep(&mut self.sources, "sysctl", (status(&sysctls), took));
        self.sysctls = sysctls;
    }

    pub(super) fn carry_dump(&mut self, from: &Self) {
        self.dumped = from.dumped;
        self.socket_dump = from.socket_dump.clone();
        carry_sources(&mut self.sources, &from.sources, &["sockets"]);
    }

    pub(super) fn carry_settings(&mut self, from: &Self) {
        self.sysctls = from.sysctls.clone();
        carry_sources(&mut self.sources, &from.sources, &["sysctl"]);
    }
}

impl HostSnapshot {
    pub(super) fn empty(at: Moment) -> Self {
        Self {
            at,
            counters: CounterSet::default(),
            sysctls: BTreeMap::new(),
            owners: Observed::not_asked(),
            facts: host_facts::HostFacts::default(),
            sources: Vec::new(),
        }
    }

    pub(super) fn counters(&mut self, probe: &mut dyn Probe) {
        read_all(&mut self.counters, &mut self.sources, probe, Scope::Host);
    }

    /// Who holds these sockets. `also`: processes whose state is wanted whatever they hold now.
    pub(super) fn owners(&mut self, probe: &mut dyn Probe, inodes: BTreeSet<u64>, also: BTreeSet<u32>) {
        self.owners = keep(&mut self.sources, "owners", owners::collect(probe, inodes, also)).map(Arc::new);
    }

    /// Settings and identity, which seldom move.
    pub(super) fn context(&mut self, probe: &mut dyn Probe) {
        self.sysctls = sysctl::collect_host(probe).0;
        let facts = keep(&mut self.sources, "host", host_facts::collect(probe));
        self.facts = facts.value().cloned().unwrap_or_default();
    }

    pub(super) fn has_context(&self) -> bool {
        self.sysctls.values().any(|value| value.value().is_some())
    }

    /// Processes that held something that was looked up.
    pub(super) fn known_processes(&self) -> BTreeSet<u32> {
        self.owners.value().map(|owners| owners.processes.keys().copied().collect()).unwrap_or_default()
    }

    /// A process that holds nothing that was looked up can open no further file.
    pub(super) fn others_at_limit(&self) -> bool {
        self.owners.value().is_some_and(|owners| !owners.at_limit.is_empty())
    }

    pub(super) fn carry_owners(&mut self, from: &Self) {
        self.owners = from.owners.clone();
        carry_sources(&mut self.sources, &from.sources, &["owners"]);
    }

    pub(super) fn carry_context(&mut self, from: &Self) {
        (self.sysctls, self.facts) = (from.sysctls.clone(), from.facts.clone());
        carry_sources(&mut self.sources, &from.sources, &["host"]);
    }
}

/// Which samples of a dump are worth a look at their owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Samples {
    /// All: a reset that comes will want to name the holder of a connection that is gone then.
    All,
    /// Those of groups that are a finding by themselves, or may be.
    Notable,
}

/// Sockets whose owners are worth a look: the listeners and these samples of the dump.
pub(super) fn inodes<'a>(
    listeners: impl Iterator<Item = &'a Listener> + 'a,
    dump: &'a Snapshot,
    which: Samples,
) -> impl Iterator<Item = u64> + 'a {
    let few = sysctl::ephemeral_ports(&dump.sysctls).count() / 2;
    // Reserved ports leave fewer than the range says.
    let reserved = dump.sysctls.get("net.ipv4.ip_local_reserved_ports").and_then(Observed::value);
    let reserved = reserved.is_none_or(|text| !text.trim().is_empty());
    let all = which == Samples::All;
    let sampled = dump.socket_dump.value().into_iter().flat_map(move |dump| {
        let groups = dump.groups.iter().filter(move |group| all || notable(group));
        let groups = groups.flat_map(|group| group.samples.iter().map(|sample| sample.inode));
        let crowded = move |destination: &&Destination| all || reserved || destination.ports_used >= few;
        let destinations = dump.destinations.iter().filter(crowded);
        groups.chain(destinations.flat_map(|destination| destination.inodes.iter().copied()))
    });
    // Inode 0 is a socket without a process: TIME_WAIT, an orphan, a half-open request.
    listeners.map(|listener| listener.inode).chain(sampled).filter(|inode| *inode != 0).map(u64::from)
}

/// Every server has established connections, and some unread bytes.
fn notable(group: &Group) -> bool {
    const MUCH: u64 = 1 << 20;
    match group.kind {
        GroupKind::Established => false,
        GroupKind::Unread => group.unread_bytes >= MUCH,
        GroupKind::CloseWait
        | GroupKind::IdleWithoutKeepalive
        | GroupKind::Retransmitting
        | GroupKind::KeepaliveProbing
        | GroupKind::Connecting
        | GroupKind::Unanswered => true,
    }
}
