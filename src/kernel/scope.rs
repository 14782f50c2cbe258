//! Scope blocks: the observed network namespaces with what is local in each, and the other ones of the host.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;

use super::addresses::{self, Changes};
use super::at_once;
use super::clock;
use super::namespace::{self, Handle};
use super::node::FIRST_PID_NAMESPACE;
use super::ready::Ready;
use crate::stream::{Kind, append, send};
use crate::value::NetnsId;

/// How often what the kernel does not tell by itself is read.
const EVERY_NS: u64 = 5_000_000_000;
/// Reading again after changes takes at most this part of the time,
const SHARE: u64 = 20;
/// and so much at once: a change in quiet times is read without delay, however slow the machine is, because what is recorded before
/// that is taken for another host's.
const AT_ONCE_NS: u64 = 100_000_000;

/// The range of ephemeral ports, which seldom moves, is read anew in one of so many namespaces, and in this many at least, each
/// time that anything is: within a minute in all.
const TURNS: usize = 12;
const PORTS_AT_ONCE: usize = 16;

/// What a stream was told about its namespaces, and whether that still holds.
pub struct Scope {
    observed: Vec<Observed>,
    /// Tells in which of several local routes changed.
    ready: Option<Ready>,
    /// Only the addresses are told: what is read of packets has nothing to do with ports and other namespaces.
    addresses_only: bool,
    /// Others are observed than were told of.
    other: bool,
    /// Readings so far: whose turn it is.
    turn: usize,
    sent: String,
    reading: Reading,
}

/// When it was read last, and how long that took.
#[derive(Debug, Default)]
struct Reading {
    /// CLOCK_MONOTONIC, ns.
    at: u64,
    /// Time that reading took and that is not made up for by [`SHARE`] of the time since, ns, at `at`.
    owed: u64,
}

impl Reading {
    fn is_due(&self, now: u64, changed: bool) -> bool {
        now.saturating_sub(self.at) >= EVERY_NS || changed && self.owed(now) <= AT_ONCE_NS
    }

    fn owed(&self, now: u64) -> u64 {
        self.owed.saturating_sub(now.saturating_sub(self.at) / SHARE)
    }

    /// It was read from `now` on, and took so long.
    fn took(&mut self, now: u64, took: u64) {
        *self = Self { at: now, owed: self.owed(now).saturating_add(took) };
    }
}

struct Observed {
    there: Handle,
    /// `None` where the kernel does not tell: then they are read each time.
    changes: Option<Changes>,
    /// Local routes changed, and the addresses are not read since.
    changed: bool,
    local: BTreeSet<IpNet>,
    /// Local until a moment ago: what was recorded before is still to be read.
    gone: BTreeSet<IpNet>,
    ephemeral: String,
}

impl Scope {
    /// Of these network namespaces.
    pub fn new(observed: Vec<Handle>) -> Self {
        Self::begun(observed, false)
    }

    /// The addresses of this one.
    pub fn of_addresses(there: Handle) -> Self {
        Self::begun(vec![there], true)
    }

    fn begun(observed: Vec<Handle>, addresses_only: bool) -> Self {
        let mut scope = Self {
            observed: Vec::new(),
            ready: (!addresses_only).then(Ready::default),
            addresses_only,
            other: true,
            turn: 0,
            sent: String::new(),
            reading: Reading::default(),
        };
        scope.observe(observed);
        scope.read(clock::monotonic_and_boottime().0);
        scope
    }

    /// From now on these are observed. What is known of those that stay is kept.
    pub fn observe(&mut self, observed: Vec<Handle>) {
        let mut known = std::mem::take(&mut self.observed);
        let mut unknown = Vec::new();
        for there in observed {
            match known.iter().position(|old| old.there == there) {
                Some(place) => self.observed.push(known.swap_remove(place)),
                None => unknown.push(there),
            }
        }
        for new in at_once::share(unknown, Observed::new) {
            if let (Some(ready), Some(changes)) = (&mut self.ready, &new.changes) {
                ready.watch(changes, new.there.id().0);
            }
            self.observed.push(new);
        }
        self.observed.sort_by_key(|observed| observed.there.id());
        // The next update tells of them.
        self.other = true;
        self.reading = Reading::default();
    }

    /// The block as it was read last.
    pub fn append(&self, out: &mut Vec<u8>) {
        append(out, Kind::Scope, 0, self.sent.as_bytes());
    }

    /// A block if something else than before is local. Called between the end of what is to be read and its reading, so that
    /// it holds for all of that.
    pub fn update(&mut self, sink: &mut dyn FnMut(&[u8])) {
        self.ready.iter_mut().for_each(Ready::look);
        let ready = |observed: &Observed| self.ready.as_ref().is_none_or(|ready| ready.is(observed.there.id().0));
        for observed in self.observed.iter_mut().filter(|observed| ready(observed)) {
            observed.changed |= observed.changes.as_ref().is_some_and(Changes::any);
        }
        let changed = self.other || self.observed.iter().any(|observed| observed.changed);
        // The kernel tells of each change of these: nothing has to be read in 500 namespaces again and again.
        if self.addresses_only && !changed && self.observed.iter().all(Observed::is_settled) {
            return;
        }
        let now = clock::monotonic_and_boottime().0;
        if self.reading.is_due(now, changed) && self.read(now) {
            send(sink, Kind::Scope, 0, self.sent.as_bytes());
        }
    }

    /// True if the text is another one.
    fn read(&mut self, now: u64) -> bool {
        let quiet = !std::mem::take(&mut self.other) && self.observed.iter().all(|observed| !observed.changed);
        let turns = TURNS.min(self.observed.len() / PORTS_AT_ONCE).max(1);
        self.turn = self.turn.wrapping_add(1);
        let mut due = Vec::new();
        for (place, observed) in self.observed.iter_mut().enumerate() {
            let in_turn = place % turns == self.turn % turns;
            if quiet {
                observed.gone.clear();
            }
            let ports = !self.addresses_only && (in_turn || observed.changed);
            due.push((observed, ports));
        }
        at_once::share(due, |(observed, ports)| observed.read(ports));
        let text = self.text();
        self.reading.took(now, clock::monotonic_and_boottime().0.saturating_sub(now));
        let other = text != self.sent;
        self.sent = text;
        other
    }

    /// Namespaces that are held by a mount (`ip netns`, container runtimes) are here, those held by processes in
    /// [`tasks`](super::trace_context::tasks).
    fn text(&self) -> String {
        let mut text = String::new();
        for observed in &self.observed {
            let _ = writeln!(text, "netns {}", observed.there.id());
            for net in observed.local.union(&observed.gone) {
                let _ = match net.prefix_len() == net.max_prefix_len() {
                    true => writeln!(text, "address {}", net.addr()),
                    false => writeln!(text, "local {net}"),
                };
            }
            text.push_str(&observed.ephemeral);
        }
        if self.addresses_only {
            return text;
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let bound = mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(3));
        for netns in bound.filter_map(NetnsId::from_link).collect::<BTreeSet<_>>() {
            let _ = writeln!(text, "namespace {netns}");
        }
        // In a pid namespace of its own, a container, most processes of the host are hidden, and their network namespaces
        // with them. 0 stands for all of these: the inode of no namespace (include/linux/proc_ns.h).
        let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        if pids.to_str() != Some(FIRST_PID_NAMESPACE) {
            text.push_str("namespace 0\n");
        }
        text
    }
}

impl Observed {
    fn new(there: Handle) -> Self {
        // Before the first reading, so that no change falls between.
        let changes = namespace::with_namespace(&there, Changes::open).ok().and_then(Result::ok);
        let (local, gone) = Default::default();
        Self { there, changes, changed: true, local, gone, ephemeral: String::new() }
    }

    /// Nothing changes unless the kernel tells of it.
    fn is_settled(&self) -> bool {
        self.changes.is_some() && self.gone.is_empty()
    }

    /// Addresses that cannot be read are those of before, and are read the next time. `ports`: the range of ephemeral ones, too.
    fn read(&mut self, ports: bool) {
        let all = std::mem::take(&mut self.changed) || self.changes.is_none();
        if !all && !ports {
            return;
        }
        let read = namespace::with_namespace(&self.there, || {
            let range = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
            (ports.then(range), all.then(addresses::local).and_then(Result::ok))
        });
        let (range, local) = read.unwrap_or_default();
        if let Some(range) = range {
            self.ephemeral = match range.split_whitespace().collect::<Vec<_>>()[..] {
                [low, high] => format!("ephemeral {low} {high}\n"),
                _ => String::new(),
            };
        }
        match local {
            Some(local) => {
                self.gone.extend(self.local.difference(&local));
                self.local = local;
            }
            None => self.changed = all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_change_in_quiet_times_is_read_at_once_and_a_row_of_them_takes_its_share_of_the_time() {
        let mut reading = Reading::default();
        let start = 10_000 * MS;
        // 60 ms each, as on a slow machine.
        reading.took(start, 60 * MS);
        assert!(reading.is_due(start + 80 * MS, true) && !reading.is_due(start + 80 * MS, false));
        reading.took(start + 80 * MS, 60 * MS);
        assert!(!reading.is_due(start + 160 * MS, true), "too much at once");
        // A change every millisecond for 10 s.
        let (mut now, mut spent) = (start + 160 * MS, 0);
        while now < start + 10_160 * MS {
            now += MS;
            if reading.is_due(now, true) {
                reading.took(now, 60 * MS);
                (now, spent) = (now + 60 * MS, spent + 60 * MS);
            }
        }
        assert!((400 * MS..=600 * MS).contains(&spent), "{spent} of 10 s");
        assert!(reading.is_due(now + EVERY_NS, false), "and what nobody tells of is read from time to time");
    }
}
