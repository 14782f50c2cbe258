//! Kernel counters by name, and the text files that hold them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::redaction::Rule;
use super::text;
use crate::ask::{Probe, Scope};
use crate::value::{Missing, Observed, ParseError};

/// A text file of counters. A new one is its own file here and a line in [`COUNTER_FILES`](super::COUNTER_FILES).
pub struct CounterFile {
    /// As the report names it: `netstat`, `snmp`, ...
    pub name: &'static str,
    pub path: &'static str,
    pub per: Per,
    pub parse: fn(&[u8]) -> Result<Counters, ParseError>,
    /// Whether a counter of this name stands in it; never for a gauge, which does not move by events.
    pub holds: fn(&str) -> bool,
    pub redaction: Rule,
}

/// Whose counters a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Host,
    /// Of the network namespace of the one who reads it.
    Netns,
}

impl CounterFile {
    /// Reads it in a scope that it is of, see [`CounterFile::per`].
    pub fn collect(&self, probe: &mut dyn Probe, scope: Scope) -> (Observed<Counters>, Duration) {
        text::collect_file(probe, scope, self.path, self.parse)
    }

    /// As [`collect`](Self::collect), for one who knows what the file said before; `None` where it says the same. To parse it
    /// takes longer than to read it.
    pub fn collect_other(
        &self,
        probe: &mut dyn Probe,
        scope: Scope,
        known: &mut Vec<u8>,
    ) -> (Option<Observed<Counters>>, Duration) {
        text::collect_other(probe, scope, self.path, known, self.parse)
    }
}

/// The counters of one instant, by file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CounterSet(BTreeMap<&'static str, Observed<Counters>>);

impl CounterSet {
    /// What there is of one file.
    pub fn of(&self, file: &CounterFile) -> &Observed<Counters> {
        static NOT_ASKED: LazyLock<Observed<Counters>> = LazyLock::new(Observed::not_asked);
        self.0.get(file.name).unwrap_or(&NOT_ASKED)
    }

    /// The counters of one file.
    ///
    /// # Errors
    /// It could not be read, or was not asked for.
    pub fn required(&self, file: &CounterFile) -> Result<&Counters, Missing> {
        self.of(file).required(file.name)
    }

    /// The counters of one file, where it was read.
    pub fn value(&self, file: &CounterFile) -> Option<&Counters> {
        self.of(file).value()
    }

    pub fn insert(&mut self, file: &CounterFile, counters: Observed<Counters>) {
        self.0.insert(file.name, counters);
    }

    /// All of it was [carried](Self::carry) from there.
    pub fn is_carried(&self, from: &Self) -> bool {
        let same = |(name, now): (&&str, &Observed<Counters>)| {
            let before = from.0.get(*name).and_then(Observed::value);
            now.value().zip(before).is_none_or(|(now, before)| Arc::ptr_eq(&now.0, &before.0))
        };
        !self.0.is_empty() && self.0.values().any(|now| now.value().is_some()) && self.0.iter().all(same)
    }

    /// Takes what another one has of a file that was not asked for again, or said the same.
    pub fn carry(&mut self, file: &CounterFile, from: &Self) {
        self.0.insert(file.name, from.of(file).clone());
    }
}

/// Counters of one source under stable names: `TcpExt.ListenOverflows` (/proc/net/netstat), `Tcp.OutRsts`
/// (/proc/net/snmp), `Ip6.Ip6InReceives` (/proc/net/snmp6), `TCP.inuse` (/proc/net/sockstat), `oom_kill` (/proc/vmstat).
/// A name that this kernel does not have is absent.
///
/// A copy shares them, and each name is in memory once: a node has the same 300 in hundreds of network namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters(Arc<BTreeMap<Arc<str>, u64>>);

impl Counters {
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl AsRef<str>, value: u64) {
        Arc::make_mut(&mut self.0).insert(named(name.as_ref()), value);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

/// Names that are kept for others, several times as many as all files of a kernel have: a bound for what a recording can make us
/// hold.
const NAMES: usize = 4_096;

thread_local! {
    static KNOWN: RefCell<HashSet<Arc<str>>> = RefCell::default();
}

fn named(name: &str) -> Arc<str> {
    KNOWN.with_borrow_mut(|known| {
        known.get(name).cloned().unwrap_or_else(|| {
            let new: Arc<str> = Arc::from(name);
            if known.len() < NAMES {
                known.insert(new.clone());
            }
            new
        })
    })
}
