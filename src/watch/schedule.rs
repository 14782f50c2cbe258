//! When to look at all sockets again. A tick costs about 1 ms, a sweep of 200,000 sockets and their owners half a second: it
//! is taken when something asks for it, and never for more than a small share of the time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cause::{Severity, State};
use crate::diagnosis::Diagnosis;
use crate::snapshot::{Observation, Snapshot};
use crate::source::Moment;

/// A sweep may take this part of the time: 2.5 % of one CPU.
const SHARE: u32 = 40;
/// What passes without a sweep on a quiet host.
const QUIET: Duration = Duration::from_secs(30);
/// With findings that are no alarm, or that only a sweep shows.
const SOME: Duration = Duration::from_secs(10);
/// The number of sockets moved much: by a tenth, and by more than this.
const MOVED: u64 = 100;

/// Why a sweep was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    First,
    /// A cause was found, and wants to name who.
    Cause,
    /// Something listens that was not there at the last sweep, or no longer does.
    Listeners,
    /// The socket counts of sockstat moved much.
    Sockets,
    /// The last one is old.
    Age,
    /// It closes a recording.
    Last,
}

impl Why {
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Cause => "cause",
            Self::Listeners => "listeners",
            Self::Sockets => "sockets",
            Self::Age => "age",
            Self::Last => "last",
        }
    }
}

#[derive(Debug, Default)]
pub struct Schedule {
    last: Option<Sweep>,
}

#[derive(Debug)]
struct Sweep {
    at: Moment,
    cost: Duration,
    sockets: Option<u64>,
    listeners: BTreeSet<u64>,
    /// There was an alarm: whether it goes on is to be seen.
    alarm: bool,
}

impl Schedule {
    /// Whether this window, judged without a sweep of its own, asks for one.
    pub fn wants(&mut self, observation: &Observation, diagnosis: &Diagnosis) -> Option<Why> {
        let after = &observation.after;
        let Some(last) = &mut self.last else { return Some(Why::First) };
        let passed = after.at.mono.saturating_sub(last.at.mono);
        if passed < last.cost * SHARE {
            return None;
        }
        let alarm = diagnosis
            .causes
            .iter()
            .any(|cause| cause.finding.state == State::Active && cause.finding.severity < Severity::Info);
        let ended = std::mem::replace(&mut last.alarm, alarm) && !alarm;
        let some = diagnosis.causes.iter().any(|cause| matches!(cause.finding.state, State::Active | State::Risk));
        let moved = match (last.sockets, sockets(after)) {
            (Some(then), Some(now)) => then.abs_diff(now) > MOVED.max(then / 10),
            _ => false,
        };
        match () {
            () if alarm || ended => Some(Why::Cause),
            () if listeners(after) != last.listeners => Some(Why::Listeners),
            () if moved => Some(Why::Sockets),
            () if some && passed >= SOME => Some(Why::Cause),
            () if passed >= QUIET => Some(Why::Age),
            () => None,
        }
    }

    /// Notes the sweep that was taken for this window.
    pub fn swept(&mut self, observation: &Observation) {
        let after = &observation.after;
        let cost = ["sockets", "owners", "sysctl"];
        let alarm = self.last.as_ref().is_some_and(|last| last.alarm);
        self.last = Some(Sweep {
            at: after.at,
            cost: after.sources.iter().filter(|source| cost.contains(&source.name)).map(|source| source.took).sum(),
            sockets: sockets(after),
            listeners: listeners(after),
            alarm,
        });
    }
}

fn listeners(snapshot: &Snapshot) -> BTreeSet<u64> {
    snapshot.listeners.value().into_iter().flatten().map(|listener| listener.cookie).collect()
}

/// Sockets of both families that sockstat counts: in use (which TIME_WAIT is not) and in TIME_WAIT.
fn sockets(snapshot: &Snapshot) -> Option<u64> {
    let v4 = snapshot.sockstat.value()?;
    let v6 = snapshot.sockstat6.value().and_then(|counters| counters.get("TCP6.inuse")).unwrap_or(0);
    Some(v4.get("TCP.inuse")? + v4.get("TCP.tw").unwrap_or(0) + v6)
}
