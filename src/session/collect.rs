//! Fills a snapshot: which sources are asked, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::looks::Looks;
use crate::ask::{Probe, Scope};
use crate::observation::{HostSnapshot, Snapshot, SourceStatus};
use crate::source::counters::{CounterFile, CounterSet, Counters, Per};
use crate::source::listeners::{self, Listener};
use crate::source::socket_dump::{Destination, Group, GroupKind};
use crate::source::{
    COUNTER_FILES, conntrack, host_facts, netstat, owners, snmp, snmp6, socket_dump, sockstat, sysctl,
};
use crate::value::{Moment, NetnsId, Observed};

/// Notes how a source went, and hands its value on.
fn keep<T>(
    sources: &mut Vec<SourceStatus>,
    name: &'static str,
    (observed, took): (Observed<T>, Duration),
) -> Observed<T> {
    let failure = observed.failure().cloned();
    let status = SourceStatus { name, failure, partial: matches!(observed, Observed::Partial(..)), note: None, took };
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

/// Nothing of the namespace itself moved. /proc/net/sockstat tells memory, orphans and allocated sockets of the whole host beside
/// its own (net/ipv4/proc.c sockstat_seq_show).
fn is_same(file: &CounterFile, now: &Observed<Counters>, before: &Observed<Counters>) -> bool {
    const OWN: [&str; 2] = ["TCP.inuse", "TCP.tw"];
    match (now.value(), before.value()) {
        (Some(now), Some(before)) if file.name == sockstat::FILE.name => {
            OWN.iter().all(|name| now.get(name) == before.get(name))
        }
        _ => now == before,
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

    /// As [`counters`](Self::counters) if anything moved since `earlier`, which as many files tell as the look says: reading all
    /// takes 0.25 ms, and of hundreds of namespaces most are idle. True if nothing moved.
    ///
    /// /proc/net/snmp counts each packet of IPv4 and each segment of TCP that came or went. What only a timer counts (a
    /// connection that no process holds is given up), and packets of IPv6 that are passed on, the other looks find. `said`: the
    /// text of it from which `earlier` is, or nothing.
    pub(super) fn counters_since(
        &mut self,
        earlier: &Self,
        probe: &mut dyn Probe,
        telling: Telling,
        said: &mut Vec<u8>,
    ) -> bool {
        let telling = telling.files();
        let scope = Scope::Netns(self.netns);
        let mut idle = true;
        for file in telling {
            let (now, took) = match file.name == snmp::FILE.name {
                true => file.collect_other(probe, scope, said),
                false => {
                    let (now, took) = file.collect(probe, scope);
                    (Some(now), took)
                }
            };
            let now = now.unwrap_or_else(|| earlier.counters.of(file).clone());
            let now = keep(&mut self.sources, file.name, (now, took));
            idle &= is_same(file, &now, earlier.counters.of(file));
            self.counters.insert(file, now);
        }
        // Without them nothing tells that it is idle.
        idle &= self.counters.value(&snmp::FILE).is_some();
        for file in COUNTER_FILES.iter().filter(|file| file.per == Per::Netns) {
            if idle {
                // Of those that were read, too: the same memory.
                self.counters.carry(file, &earlier.counters);
            } else if telling.iter().all(|told| told.name != file.name) {
                self.counters.insert(file, keep(&mut self.sources, file.name, file.collect(probe, scope)));
            }
        }
        if idle {
            self.conntrack = earlier.conntrack.clone();
            let counters = |name: &str| name == "conntrack" || COUNTER_FILES.iter().any(|file| file.name == name);
            let known: Vec<&str> = self.sources.iter().map(|source| source.name).collect();
            let carried =
                earlier.sources.iter().filter(|source| counters(source.name) && !known.contains(&source.name));
            self.sources.extend(carried.map(|source| SourceStatus { took: Duration::ZERO, ..source.clone() }));
        } else {
            self.conntrack = keep(&mut self.sources, "conntrack", conntrack::collect(probe, self.netns));
        }
        idle
    }

    /// Those of before, where nothing moved since.
    pub(super) fn carry_listeners(&mut self, from: &Self, looks: &mut Looks) {
        self.listeners = from.listeners.clone();
        carry_sources(&mut self.sources, &from.sources, &["listeners"]);
        if let Some(listening) = self.listeners.value() {
            looks.look(listening);
        }
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

    /// The settings and nothing else.
    pub(super) fn of_settings(probe: &mut dyn Probe, netns: NetnsId, at: Moment) -> Self {
        let mut settings = Self::empty(netns, at);
        settings.settings(probe);
        settings
    }

    /// The one setting that the reading of resets needs, where the others are read in turn.
    pub(super) fn port_range(&mut self, probe: &mut dyn Probe) {
        self.sysctls.extend(sysctl::collect_port_range(probe, self.netns));
    }

    /// They were looked at. A recording may hold them in some windows only, and a few files of them, which are sources of their own, in
    /// each.
    pub(super) fn holds_settings(&self) -> bool {
        self.sysctls.values().filter(|value| !value.is_not_collected()).count() * 2 > self.sysctls.len()
    }

    /// All settings were looked at.
    pub(super) fn has_settings(&self) -> bool {
        self.sysctls.len() == sysctl::NAMES.len()
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

    /// Adds who holds these sockets as far as it was known before, and is still there.
    pub(super) fn owners_as_before(&mut self, before: &Self, inodes: &BTreeSet<u32>) {
        if let (Observed::Full(owners) | Observed::Partial(owners, _), Some(before)) =
            (&mut self.owners, before.owners.value())
        {
            Arc::make_mut(owners).add_known(before, inodes);
        }
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

/// Which files tell whether anything moved in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Snmp,
    Most,
    All,
}

impl Telling {
    fn files(self) -> &'static [&'static CounterFile] {
        static ALL: [&CounterFile; 5] = [&snmp::FILE, &netstat::FILE, &snmp6::FILE, &sockstat::FILE, &sockstat::FILE_6];
        let (snmp, most) = (&ALL[..1], &ALL[..3]);
        match self {
            Self::Snmp => snmp,
            Self::Most => most,
            Self::All => &ALL,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{Answer, Ask, What};
    use crate::value::{Failure, FailureKind};

    const NETNS: NetnsId = NetnsId(4_026_532_000);
    const SNMP: &[u8] = include_bytes!("../source/samples/snmp-6.18.txt");
    const NETSTAT: &[u8] = include_bytes!("../source/samples/netstat-6.18.txt");

    /// A namespace that shows its counters, and notes what it was asked for.
    struct Shows {
        snmp: Vec<u8>,
        netstat: Vec<u8>,
        asked: Vec<String>,
    }

    impl Probe for Shows {
        fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
            assert_eq!(ask.scope, Scope::Netns(NETNS));
            let What::File(path) = &ask.what else { panic!("only files are asked for: {ask:?}") };
            self.asked.push(path.rsplit('/').next().unwrap_or_default().to_owned());
            let text = match path.as_str() {
                "/proc/net/snmp" => Some(&self.snmp),
                "/proc/net/netstat" => Some(&self.netstat),
                _ => None,
            };
            text.into_iter().for_each(|text| sink(text));
            let absent = || Failure::new(FailureKind::Absent, "not in this test");
            Answer { result: text.map(|_| ()).ok_or_else(absent), took: Duration::from_micros(1) }
        }
    }

    /// What the snapshot after `earlier` asks for, and whether it says that nothing moved.
    fn since(earlier: &Snapshot, shows: &mut Shows, telling: Telling) -> (Snapshot, Vec<String>, bool) {
        let mut now = Snapshot::empty(NETNS, Moment::default());
        shows.asked.clear();
        let idle = now.counters_since(earlier, shows, telling, &mut Vec::new());
        (now, shows.asked.clone(), idle)
    }

    fn moved(text: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = std::str::from_utf8(text).expect("text");
        assert!(text.contains(from));
        text.replacen(from, to, 1).into_bytes()
    }

    #[test]
    fn what_the_whole_host_holds_is_no_movement_of_a_namespace() {
        let sockstat = |text: &str| Observed::Full((sockstat::FILE.parse)(text.as_bytes()).expect("sound"));
        let before = sockstat("sockets: used 9\nTCP: inuse 2 orphan 0 tw 1 alloc 40 mem 7\n");
        let host = sockstat("sockets: used 9\nTCP: inuse 2 orphan 3 tw 1 alloc 90 mem 70\n");
        let own = sockstat("sockets: used 9\nTCP: inuse 3 orphan 0 tw 1 alloc 40 mem 7\n");
        assert!(before != host && is_same(&sockstat::FILE, &host, &before));
        assert!(!is_same(&sockstat::FILE, &own, &before));
        assert!(!is_same(&sockstat::FILE, &Observed::not_asked(), &before));
    }

    #[test]
    fn an_idle_namespace_is_asked_for_one_file_and_one_that_moved_for_all() {
        let mut shows = Shows { snmp: SNMP.to_vec(), netstat: NETSTAT.to_vec(), asked: Vec::new() };
        let mut before = Snapshot::empty(NETNS, Moment::default());
        before.counters(&mut shows);
        let (after, asked, idle) = since(&before, &mut shows, Telling::Snmp);
        assert_eq!((asked, idle), (vec!["snmp".to_owned()], true));
        assert!(after.counters.is_carried(&before.counters));
        assert_eq!(after.conntrack, before.conntrack);
        let (all, asked, idle) = since(&before, &mut shows, Telling::All);
        assert!(
            idle && asked.len() == 5 && all.counters.is_carried(&before.counters),
            "it is idle whoever asks: {asked:?}"
        );
        let names = |snapshot: &Snapshot| snapshot.sources.iter().map(|source| source.name).collect::<BTreeSet<_>>();
        assert_eq!(names(&after), names(&before), "how each source went is known of it, too");

        let value = before.counters.value(&snmp::FILE).and_then(|snmp| snmp.get("Tcp.OutRsts")).expect("a counter");
        let line = std::str::from_utf8(SNMP).expect("text").lines().filter(|line| line.starts_with("Tcp:")).nth(1);
        let line = line.expect("the values of Tcp");
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let place = fields.iter().rposition(|field| *field == value.to_string()).expect("its value");
        fields[place] = (value + 1).to_string();
        shows.snmp = moved(SNMP, line, &fields.join(" "));
        let (after, asked, idle) = since(&before, &mut shows, Telling::Snmp);
        assert!(!idle && !after.counters.is_carried(&before.counters));
        for file in ["snmp", "netstat", "snmp6", "sockstat", "sockstat6", "nf_conntrack_count"] {
            assert_eq!(asked.iter().filter(|asked| *asked == file).count(), 1, "{file} of {asked:?}");
        }
    }

    #[test]
    fn what_only_a_timer_counts_is_found_by_a_thorough_look() {
        let mut shows = Shows { snmp: SNMP.to_vec(), netstat: NETSTAT.to_vec(), asked: Vec::new() };
        let mut before = Snapshot::empty(NETNS, Moment::default());
        before.counters(&mut shows);
        shows.netstat = moved(NETSTAT, "\nTcpExt: 0", "\nTcpExt: 1");
        assert!(since(&before, &mut shows, Telling::Snmp).2, "a quick look does not");
        for telling in [Telling::Most, Telling::All] {
            let (after, _, idle) = since(&before, &mut shows, telling);
            assert!(!idle);
            assert_ne!(after.counters.value(&netstat::FILE), before.counters.value(&netstat::FILE));
        }
    }

    #[test]
    fn without_the_file_that_tells_all_are_asked_for() {
        let mut shows = Shows { snmp: b"cut".to_vec(), netstat: NETSTAT.to_vec(), asked: Vec::new() };
        let mut before = Snapshot::empty(NETNS, Moment::default());
        before.counters(&mut shows);
        let (_, asked, idle) = since(&before, &mut shows, Telling::Snmp);
        assert!(!idle && asked.contains(&"netstat".to_owned()), "{asked:?}");
    }
}
