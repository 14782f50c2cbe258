//! The namespaces of a session: how each is looked at, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::collect::{self, Samples, Telling};
use super::looks::Looks;
use super::{Load, Plan, Session};
use crate::ask::{Probe, Scope};
use crate::observation::{HostSnapshot, NetnsWindow, Observation, Snapshot};
use crate::source::counters::Counters;
use crate::source::listeners::{self, Listener};
use crate::source::namespaces::{self, Namespace};
use crate::source::node::{self, Node};
use crate::source::socket_dump::SocketDump;
use crate::source::{sockstat, sysctl};
use crate::value::{Failure, FailureKind, Moment, NetnsId, Observed};

/// Up to so many namespaces, all are looked at each time; of more as many in turn, and those in which something waits.
pub const AT_ONCE: usize = 16;
/// A look at all sockets walks the hash table of the whole host, 1 ms to 40 ms for each namespace: so long for all of them when a
/// session opens.
const SWEEPS: Duration = Duration::from_millis(500);
/// So long for those of many namespaces in which nothing happens.
const IDLE_SWEEPS: Duration = Duration::from_millis(100);
/// Of many idle namespaces one in so many is asked for everything in each window.
const SELDOM: usize = 8;
/// Looks between two looks at the settings of one of many namespaces, in a row of windows.
const SETTINGS_TURN: usize = 4;
/// Between two looks at the node where no namespace comes or goes.
const NODE: Duration = Duration::from_secs(30);

/// One namespace between two frames.
pub(super) struct OfNetns {
    pub name: Option<String>,
    /// Closed the latest window.
    pub previous: Snapshot,
    /// Holds the dump before the latest one.
    pub earlier: Snapshot,
    pub looks: Looks,
    /// It was not there when the session opened, and is in no window yet.
    pub came: bool,
    /// The settings that were looked at since the latest window closed.
    pub settings: Option<Snapshot>,
    /// Connections wait to be accepted: it is looked at each time.
    busy: bool,
    /// The text of the counters from which those of `previous` are; nothing where that is not known.
    said: Vec<u8>,
}

/// So many that not all are looked at each time.
pub(super) fn are_many(netns: &BTreeMap<NetnsId, OfNetns>) -> bool {
    netns.len() > AT_ONCE
}

/// The slow look at all namespaces when a session opens. Of many, all sockets are looked at only in the own one and where
/// connections wait, and the settings are looked at in turn, later.
pub(super) fn open_all(
    probe: &mut dyn Probe,
    all: Vec<Namespace>,
    own: Option<NetnsId>,
    at: Moment,
    plan: &Plan,
) -> BTreeMap<NetnsId, OfNetns> {
    // One alone takes what it takes.
    let mut time = if all.len() > 1 { SWEEPS } else { Duration::MAX };
    let many = all.len() > AT_ONCE && !plan.length.is_zero();
    let mut netns = BTreeMap::new();
    for namespace in all {
        let mut of = OfNetns::open(probe, namespace, at);
        if plan.sockets && (!many || own == Some(of.previous.netns) || of.busy) {
            of.sweep(probe, &mut time);
        }
        netns.insert(of.previous.netns, of);
    }
    for (id, of) in &mut netns {
        match !many || own == Some(*id) {
            true => of.previous.settings(probe),
            false => of.previous.port_range(probe),
        }
    }
    netns
}

/// The namespaces that the host looks into; one without a number where it does not say.
pub(super) fn all(probe: &mut dyn Probe) -> Vec<Namespace> {
    let mut all = namespaces::collect(probe).0.value().cloned().unwrap_or_default();
    if all.is_empty() {
        all.push(Namespace { id: NetnsId::default(), name: None });
    }
    all
}

/// The node, and when it was looked at.
pub(super) fn node(probe: &mut dyn Probe) -> Observed<Arc<Node>> {
    node::collect(probe).0.map(Arc::new)
}

impl OfNetns {
    /// Looks at the listeners.
    pub fn open(probe: &mut dyn Probe, namespace: Namespace, at: Moment) -> Self {
        let mut looks = Looks::default();
        let mut before = Snapshot::empty(namespace.id, at);
        before.listeners(probe, &mut looks);
        let busy = before.listeners.value().is_some_and(|listeners| waits(listeners));
        let (name, earlier) = (namespace.name, before.clone());
        Self { name, earlier, previous: before, looks, came: false, settings: None, busy, said: Vec::new() }
    }

    /// Looks at all sockets, as long as `time` is left for it. One that is alone has [`Duration::MAX`].
    fn sweep(&mut self, probe: &mut dyn Probe, time: &mut Duration) {
        match *time == Duration::MAX {
            true => self.previous.sockets(probe),
            false => sweep(probe, &mut self.previous, time),
        }
        self.earlier = self.previous.clone();
    }
}

/// A connection waits to be accepted.
fn waits(listeners: &[Listener]) -> bool {
    listeners.iter().any(|listener| listener.recv_q > 0)
}

/// Looks at all sockets of one namespace of several: not where its own counts say that there is none but the listeners, and not
/// beyond the time that is left.
fn sweep(probe: &mut dyn Probe, snapshot: &mut Snapshot, time: &mut Duration) {
    let scope = Scope::Netns(snapshot.netns);
    let count = |probe: &mut dyn Probe, file: &crate::source::counters::CounterFile, names: &[&str]| {
        let (counters, _) = file.collect(probe, scope);
        let counters: &Counters = counters.value()?;
        names.iter().map(|name| counters.get(name)).sum::<Option<u64>>()
    };
    let v4 = count(probe, &sockstat::FILE, &["TCP.inuse", "TCP.tw"]);
    let v6 = count(probe, &sockstat::FILE_6, &["TCP6.inuse"]);
    let listeners = snapshot.listeners.value().map(|listeners| listeners.len() as u64);
    if let (Some(v4), Some(listeners)) = (v4, listeners)
        && v4 + v6.unwrap_or(0) <= listeners
    {
        snapshot.socket_dump = Observed::Full(Arc::new(SocketDump::default()));
        return;
    }
    if time.is_zero() {
        let reason = "other network namespaces took the time that a look at all sockets may take";
        let needs = "rstdoctor scan --netns of this one";
        snapshot.socket_dump = Observed::Unavailable(Failure::new(FailureKind::NotCollected, reason).needs(needs));
        return;
    }
    snapshot.sockets(probe);
    let took = snapshot.sources.iter().filter(|source| source.name == "sockets").map(|source| source.took).sum();
    *time = time.saturating_sub(took);
}

/// The sockets whose owners are worth a look.
pub(super) fn wanted(netns: &BTreeMap<NetnsId, OfNetns>, samples: Samples) -> BTreeSet<u64> {
    let of = |of: &OfNetns| collect::inodes(of.looks.seen(), &of.previous, samples).collect::<Vec<_>>();
    netns.values().flat_map(of).collect()
}

impl Session {
    /// How soon it is worth looking again.
    pub(super) fn look(&mut self, probe: &mut dyn Probe, at: Moment) -> Load {
        let arrived = self.streams.drain(probe);
        self.streams.join_if_much(at.mono);
        let mut load = if arrived >= super::MUCH { Load::Some } else { Load::Low };
        let stride = self.netns.len().div_ceil(AT_ONCE).max(1);
        self.turn = self.turn.wrapping_add(1);
        let looked_at = if self.plan.sockets { &mut self.netns } else { &mut BTreeMap::new() };
        for (place, (id, of)) in looked_at.iter_mut().enumerate() {
            if place % stride != self.turn % stride && !of.busy {
                continue;
            }
            let listeners = listeners::collect(probe, *id).0;
            let Some(listeners) = listeners.value() else { continue };
            of.looks.look(listeners);
            of.busy = waits(listeners);
            let filling = |l: &Listener| u64::from(l.recv_q) * 4 > u64::from(l.backlog);
            if load == Load::Low && listeners.iter().any(filling) {
                load = Load::Filling;
            }
        }
        if std::mem::take(&mut self.owners_due) {
            self.host.owners(probe, wanted(&self.netns, Samples::All), BTreeSet::new());
        }
        self.settings_in_turn(probe, at);
        if arrived >= super::VERY_MUCH { Load::Storm } else { load }
    }

    /// Of many namespaces the settings are looked at between the windows, 24 files of each, which cost 1 ms and more where there
    /// are hundreds: first of those of which none are known, then of one after the other. Where something happens they are
    /// looked at when the window ends.
    fn settings_in_turn(&mut self, probe: &mut dyn Probe, at: Moment) {
        if !are_many(&self.netns) {
            return;
        }
        // One window ends soon, and is to know of all; a row of them goes on.
        let count = match self.plan.interval {
            None => AT_ONCE,
            Some(_) if self.turn.is_multiple_of(SETTINGS_TURN) => 1,
            Some(_) => return,
        };
        let unknown = |of: &OfNetns| of.settings.is_none() && !of.previous.has_settings();
        let mut turn: Vec<NetnsId> =
            self.netns.iter().filter(|(_, of)| unknown(of)).map(|(id, _)| *id).take(count).collect();
        if turn.is_empty() && self.turn.is_multiple_of(SETTINGS_TURN) {
            turn.extend(self.netns.keys().nth(self.turn / SETTINGS_TURN % self.netns.len()));
        }
        for id in turn {
            if let Some(of) = self.netns.get_mut(&id) {
                of.settings = Some(Snapshot::of_settings(probe, id, at));
            }
        }
    }

    /// The counters of each namespace, and in which of many nothing moved: one in eight of them is asked for everything
    /// whatever it says, each in its turn.
    pub(super) fn counters_of_all(
        &mut self,
        probe: &mut dyn Probe,
        at: Moment,
        last: bool,
    ) -> (BTreeMap<NetnsId, Snapshot>, BTreeSet<NetnsId>) {
        let (many, own) = (are_many(&self.netns), self.node().and_then(|node| node.own));
        self.windows = self.windows.wrapping_add(1);
        let mut idle = BTreeSet::new();
        let mut after = BTreeMap::new();
        for (place, (id, of)) in self.netns.iter_mut().enumerate() {
            let mut snapshot = Snapshot::empty(*id, at);
            let telling = match place % SELDOM == self.windows % SELDOM {
                _ if last => Telling::Most,
                true => Telling::All,
                false => Telling::Snmp,
            };
            if !many || own == Some(*id) {
                snapshot.counters(probe);
                of.said.clear();
            } else if snapshot.counters_since(&of.previous, probe, telling, &mut of.said) {
                idle.insert(*id);
            }
            after.insert(*id, snapshot);
        }
        (after, idle)
    }

    /// Notes at the end of a window which namespaces are gone, and begins with those that came: they are in the next one.
    pub(super) fn renew(&mut self, probe: &mut dyn Probe, observation: &mut Observation, at: Moment, last: bool) {
        let now = namespaces::collect(probe).0;
        // Older recordings say it once.
        let Some(now) = now.value() else { return };
        for (id, window) in &mut observation.netns {
            window.gone = now.iter().all(|namespace| namespace.id != *id) && *id != NetnsId::default();
        }
        let gone: Vec<NetnsId> = observation.netns.iter().filter(|(_, of)| of.gone).map(|(id, _)| *id).collect();
        for id in &gone {
            self.netns.remove(id);
            self.streams.remove(*id);
        }
        let mut came = false;
        for namespace in now.iter().filter(|_| !last) {
            if self.netns.contains_key(&namespace.id) || namespace.id == NetnsId::default() {
                continue;
            }
            came = true;
            let id = namespace.id;
            let mut of = OfNetns::open(probe, namespace.clone(), at);
            of.previous.settings(probe);
            of.previous.counters(probe);
            of.earlier = of.previous.clone();
            of.came = true;
            self.streams.add(id);
            self.streams.set_ephemeral(id, sysctl::ephemeral_ports(&of.previous.sysctls));
            self.netns.insert(id, of);
        }
        let old = at.mono.saturating_sub(self.node_at.mono) >= NODE;
        if last || came || old || !gone.is_empty() {
            self.node_at = at;
            let fresh = node(probe);
            // A recording may hold it in some windows only.
            if fresh.value().is_some() {
                self.node = with_gone(&self.node, fresh, &gone);
            }
        }
        observation.host.node = self.node.clone();
    }

    /// Follows the namespaces that come and go, for one who has no windows. Those that are gone.
    pub fn follow(&mut self, probe: &mut dyn Probe) -> Vec<NetnsId> {
        let at = self.now;
        let now = namespaces::collect(probe).0;
        let Some(now) = now.value() else { return Vec::new() };
        let is_there = |id: &NetnsId| now.iter().any(|namespace| namespace.id == *id) || *id == NetnsId::default();
        let gone: Vec<NetnsId> = self.netns.keys().copied().filter(|id| !is_there(id)).collect();
        for id in &gone {
            self.netns.remove(id);
            self.streams.remove(*id);
        }
        let came: Vec<Namespace> = now.iter().filter(|one| !self.netns.contains_key(&one.id)).cloned().collect();
        if !came.is_empty() {
            let fresh = node(probe);
            if fresh.value().is_some() {
                self.node = fresh;
            }
        }
        for namespace in came {
            self.streams.add(namespace.id);
            self.netns.insert(namespace.id, OfNetns::open(probe, namespace, at));
        }
        gone
    }

    /// What is known of the node.
    pub fn node(&self) -> Option<&Node> {
        self.node.value().map(Arc::as_ref)
    }

    /// Looks at all sockets and their owners for the window that was just closed. False if the host does not have them now: a
    /// recording may hold them in some windows only. `which`: of these namespaces; the others keep what they have.
    pub fn dump(&self, host: &mut dyn Probe, observation: &mut Observation, which: &dyn Fn(NetnsId) -> bool) -> bool {
        let mut fresh: BTreeMap<NetnsId, Snapshot> = BTreeMap::new();
        let mut inodes = BTreeSet::new();
        let mut time = SWEEPS;
        let (alone, many) = (observation.netns.len() == 1, observation.netns.len() > AT_ONCE);
        let own = observation.host.node.value().and_then(|node| node.own);
        // Who holds what in idle ones was looked up before.
        let known = observation.host.after.owners.value().is_some();
        let mut held = BTreeSet::new();
        let mut want = |wanted: &mut dyn Iterator<Item = u64>, is_asked: bool| match is_asked || !known {
            true => inodes.extend(wanted),
            false => held.extend(wanted.filter_map(|inode| u32::try_from(inode).ok())),
        };
        let mut order: Vec<(&NetnsId, &NetnsWindow)> = observation.netns.iter().collect();
        // Where something happened is looked at first, of many for most of the time; of idle ones that which was not yet, or
        // the longest ago.
        let dumped = |of: &NetnsWindow| of.after.socket_dump.value().map(|_| of.after.dumped.mono);
        order.sort_by_cached_key(|(id, of)| {
            let idle = of.is_idle();
            (own != Some(**id), idle, if idle { dumped(of) } else { None })
        });
        for (id, of) in order {
            let traced = of.listener_traces.values().map(|trace| &trace.last);
            let asks = !many || own == Some(*id) || !of.is_idle();
            if !asks {
                // All that follow are idle, too.
                time = time.min(IDLE_SWEEPS);
            }
            // What is known of an idle one still holds.
            let keeps = !asks && time.is_zero() && of.after.socket_dump.value().is_some();
            if !which(*id) || keeps {
                want(&mut collect::inodes(traced, &of.after, Samples::All), asks);
                continue;
            }
            let mut dump = Snapshot::empty(*id, of.after.at);
            dump.listeners = of.after.listeners.clone();
            if alone {
                dump.sockets(host);
            } else {
                sweep(host, &mut dump, &mut time);
            }
            let listeners = traced.chain(dump.listeners.value().into_iter().flatten());
            let is_dumped = dump.socket_dump.value().is_some();
            want(&mut collect::inodes(listeners, &dump, Samples::All), asks || is_dumped);
            fresh.insert(*id, dump);
        }
        if fresh.values().all(|dump| dump.socket_dump.is_not_collected()) {
            return false;
        }
        let mut whole = HostSnapshot::empty(observation.host.after.at);
        whole.owners(host, inodes, observation.host.after.known_processes());
        whole.owners_as_before(&observation.host.after, &held);
        // They were carried here from the latest dump.
        observation.host.before.carry_owners(&observation.host.after);
        observation.host.after.carry_owners(&whole);
        for (id, of) in &mut observation.netns {
            if let Some(fresh) = fresh.get(id) {
                of.before.carry_dump(&of.after);
                of.after.carry_dump(fresh);
            }
        }
        true
    }
}

/// The node as it is now, with what was known of those that are gone.
fn with_gone(before: &Observed<Arc<Node>>, now: Observed<Arc<Node>>, gone: &[NetnsId]) -> Observed<Arc<Node>> {
    let Some(before) = before.value().filter(|_| !gone.is_empty()) else { return now };
    now.map(|node| {
        let mut node = Arc::unwrap_or_clone(node);
        for id in gone {
            if let Some(known) = before.netns.get(id) {
                node.netns.entry(*id).or_insert_with(|| known.clone());
                let ids = known.containers.iter().map(|id| node::container::short(id));
                let known = ids.filter_map(|id| Some((id.to_owned(), before.containers.get(id)?.clone())));
                for (id, container) in known {
                    node.containers.entry(id).or_insert(container);
                }
            }
        }
        Arc::new(node)
    })
}
