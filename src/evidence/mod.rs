//! The questions that causes may ask about an observation. Every answer says where it comes from; an answer that cannot
//! be given is a [`Missing`], never a zero.

use std::ops::Deref;
use std::sync::Arc;

use crate::evidence::ledger::Ledger;
use crate::evidence::readings::Readings;
pub use crate::evidence::readings::Used;
use crate::evidence::service::Service;
use crate::observation::{Observation, Snapshot};
use crate::reset::wire::Wire;
use crate::reset::{self, Attribution, Group as ResetGroup};
use crate::source::conntrack::Conntrack;
use crate::source::destroyed_sockets::DestroyedSockets;
use crate::source::owners::{Owners, Process, TICKS_PER_SECOND};
use crate::source::reset_events::{Direction, ResetEvents};
use crate::source::socket_dump::{Destination, Group, GroupKind, SocketDump};
use crate::value::{Missing, Observed};

pub mod backlog;
pub mod estimate;
pub mod ledger;
mod readings;
pub mod service;

fn shared<'a, T>(source: &'static str, observed: &'a Observed<Arc<T>>) -> Result<&'a T, Missing> {
    observed.get().map(Arc::as_ref).map_err(|failure| Missing::from_failure(source, failure))
}

/// The evidence of one observation.
pub struct Evidence<'a> {
    readings: Readings<'a>,
    services: Vec<Service<'a>>,
    attribution: Result<Attribution, Missing>,
    wire: Result<Wire, Missing>,
    ledger: Ledger,
}

/// Evidence begins with what was read.
impl<'a> Deref for Evidence<'a> {
    type Target = Readings<'a>;

    fn deref(&self) -> &Readings<'a> {
        &self.readings
    }
}

impl<'a> Evidence<'a> {
    pub fn new(observation: &'a Observation) -> Self {
        let readings = Readings::new(observation);
        let wire = Wire::new(observation);
        let attribution = reset::attribute(observation, wire.as_ref().ok());
        let ledger = ledger::account(&readings, attribution.as_ref(), wire.as_ref());
        Self { readings, services: service::services(observation), attribution, wire, ledger }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everything that listens, grouped by address and port, worst first.
    pub fn services(&self) -> Result<&[Service<'a>], Missing> {
        match self.after().listeners.get().or_else(|_| self.before().listeners.get()) {
            Ok(_) => Ok(&self.services),
            Err(failure) => Err(Missing::from_failure("listeners", failure)),
        }
    }

    /// The latest sweep of all sockets: at the end of the window, or in a live view some ticks before.
    pub fn socket_dump(&self) -> Result<&'a SocketDump, Missing> {
        shared("sockets", &self.after().socket_dump)
    }

    pub fn socket_dump_before(&self) -> Result<&'a SocketDump, Missing> {
        shared("sockets", &self.before().socket_dump)
    }

    /// The sweep before is from about when the window began. A live view's may be from long before: what was so then says little
    /// about the moment before a reset, and what grew since then did not grow in the window.
    pub fn sweep_before_is_fresh(&self) -> bool {
        self.before().at.mono.saturating_sub(self.before().dumped.mono) <= self.window()
    }

    /// Groups of sockets of one kind, largest first.
    pub fn groups(&self, kind: GroupKind) -> Result<Vec<&'a Group>, Missing> {
        let mut groups: Vec<_> = self.socket_dump()?.groups.iter().filter(|group| group.kind == kind).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.sockets));
        Ok(groups)
    }

    /// Local ports in use per (source, destination, destination port), largest first.
    pub fn destinations(&self) -> Result<&'a [Destination], Missing> {
        Ok(&self.socket_dump()?.destinations)
    }

    pub fn conntrack(&self) -> Result<&'a Conntrack, Missing> {
        self.after().conntrack.get().map_err(|failure| Missing::from_failure("conntrack", failure))
    }

    /// The change of one column of /proc/net/stat/nf_conntrack, summed over the CPUs.
    pub fn conntrack_moved(&self, column: &str) -> Result<u64, Missing> {
        let at = |snapshot: &'a Snapshot| {
            let conntrack = snapshot.conntrack.get().map_err(|failure| Missing::from_failure("conntrack", failure))?;
            conntrack
                .stat
                .as_ref()
                .and_then(|stat| stat.get(column))
                .ok_or_else(|| Missing::new("conntrack", format!("no column {column} in /proc/net/stat/nf_conntrack")))
        };
        let (before, after) = (at(self.before())?, at(self.after())?);
        after
            .checked_sub(before)
            .ok_or_else(|| Missing::new("conntrack", format!("{column} went backwards, from {before} to {after}")))
    }

    /// Socket owners at the end of the window.
    pub fn owners(&self) -> Result<&'a Owners, Missing> {
        shared("owners", &self.after().owners)
    }

    pub fn owners_before(&self) -> Result<&'a Owners, Missing> {
        shared("owners", &self.before().owners)
    }

    /// Processes that hold any of these sockets at the end of the window, each once.
    pub fn holders(&self, inodes: impl IntoIterator<Item = u32>) -> Vec<&'a Process> {
        let Some(owners) = self.after().owners.value() else { return Vec::new() };
        service::holders(owners, inodes)
    }

    /// Processes that could not be looked into, so that an owner may be invisible.
    pub fn hidden_processes(&self) -> u64 {
        self.after().owners.value().map_or(0, |owners| owners.denied)
    }

    /// Share of one CPU that the process used between the two looks at the owners, 1.0 = one CPU fully.
    pub fn cpu_share(&self, pid: u32) -> Option<f64> {
        let process = |snapshot: &'a Snapshot| snapshot.owners.value()?.processes.get(&pid);
        let (before, after) = (process(self.before())?, process(self.after())?);
        let between = self.after().dumped.mono.saturating_sub(self.before().dumped.mono);
        if before.start_ticks != after.start_ticks || between.is_zero() {
            return None;
        }
        let ticks = after.cpu_ticks.checked_sub(before.cpu_ticks)?;
        Some(ticks as f64 / TICKS_PER_SECOND as f64 / between.as_secs_f64())
    }

    /// Single resets with reasons, where tracepoints could be used.
    pub fn resets(&self) -> Result<&'a ResetEvents, Missing> {
        self.observation().reset_events.get().map_err(|failure| Missing::from_failure("reset_events", failure))
    }

    /// Every reset event of the window by kind.
    pub fn attribution(&self) -> Result<&Attribution, Missing> {
        self.attribution.as_ref().map_err(Clone::clone)
    }

    /// What the RST packets on the interfaces say.
    pub fn wire(&self) -> Result<&Wire, Missing> {
        self.wire.as_ref().map_err(Clone::clone)
    }

    /// Connections that were destroyed in the window.
    pub fn destroyed_sockets(&self) -> Result<&'a DestroyedSockets, Missing> {
        self.observation().destroyed_sockets.get().map_err(|failure| Missing::from_failure("last_words", failure))
    }

    /// The resets that belong to a cause, by single events; most frequent first. A cause of sent resets also needs the
    /// kernel's reasons, which a cause of received ones does not.
    pub fn resets_of(&self, cause: &str, direction: Direction) -> Result<Vec<&ResetGroup>, Missing> {
        let attribution = self.attribution()?;
        if direction == Direction::Sent {
            attribution.sent.clone()?;
        }
        let belongs = |group: &&ResetGroup| group.direction == direction && group.kind.cause() == Some(cause);
        let found: Vec<_> = attribution.groups.iter().filter(belongs).collect();
        match attribution.hidden {
            hidden @ 1.. if found.is_empty() && direction == Direction::Sent => Err(Missing::new(
                "reset_events",
                format!("the records of {} were lost", crate::value::words::counted(hidden, "sent RST")),
            )),
            _ => Ok(found),
        }
    }

    /// Open files of the whole host at the end of the window: (allocated, the most that fs.file-max allows).
    pub fn file_nr(&self) -> Result<(u64, u64), Missing> {
        let counters = self.after().file_nr.get().map_err(|failure| Missing::from_failure("file_nr", failure))?;
        match (counters.get("allocated"), counters.get("max")) {
            (Some(allocated), Some(max)) => Ok((allocated, max)),
            _ => Err(Missing::new("file_nr", "/proc/sys/fs/file-nr has another form")),
        }
    }

    /// How much the worst accept queue of this service grew between the first and the last sample.
    pub fn queue_growth(&self, service: &Service<'_>) -> u64 {
        let worst = service.worst();
        u64::from(worst.last.recv_q.saturating_sub(worst.first.recv_q))
    }
}
