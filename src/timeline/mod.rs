//! A row of windows judged one by one, and what a person wants to know of the row: what appeared, worsened and ended, when,
//! and what else changed meanwhile. Pure: [`Watch`] takes windows and gives [`Tick`]s.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnosis::filter::Filter;
use crate::diagnosis::idle::Known;
use crate::diagnosis::node::diagnose_each;
use crate::diagnosis::{Diagnosis, Status};
use crate::observation::Observation;
use crate::reset::Surroundings;
use crate::session::Window;
use crate::trace::Reset;
use crate::value::{Moment, NetnsId};

mod changes;
mod driver;
mod episodes;
mod place;
mod rate;
mod resets;
mod schedule;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use changes::{Change, ChangeKind};
pub use driver::{Driver, Next};
pub use episodes::{Episode, Event, Phase, Root, What};
pub use place::{Key, Place};
pub use rate::Usual;
pub use schedule::Why;

use episodes::Timeline;
use schedule::Schedule;

/// So much must have been seen before a rate is called usual.
pub const LEARNING: Duration = Duration::from_secs(60);

/// Single resets of one window that are shown.
pub const RESETS: usize = 200;

/// The judge of a row of windows.
#[derive(Debug, Clone)]
pub struct Watch {
    filter: Filter,
    known: Known,
    schedule: Schedule,
    timeline: Timeline,
    ticks: u64,
    /// Of these, those in which too little was seen for a verdict.
    unknown: u64,
    started: Option<Moment>,
    latest: Option<Moment>,
}

/// One window, judged.
#[derive(Debug, Clone)]
pub struct Tick {
    /// From 1.
    pub number: u64,
    /// When the window ended.
    pub at: Moment,
    /// How far apart windows are meant to end.
    pub interval: Duration,
    /// How long after its time it ended, where that is more than the clock's noise.
    pub late: Option<Duration>,
    pub sweep: Sweep,
    /// How long until rates can be called usual; `None` when that is over.
    pub learning: Option<Duration>,
    /// The verdict without flicker: that of what goes on, see [`Episode`].
    pub status: Status,
    /// Of this window alone.
    pub diagnosis: Diagnosis,
    /// What goes on and what ended lately. The order changes only when something appears or its severity changes.
    pub episodes: Vec<Episode>,
    pub events: Vec<Event>,
    pub changes: Vec<Change>,
    /// Single resets of this window, oldest first, the latest [`RESETS`] of them.
    pub resets: Vec<Reset>,
}

impl Tick {
    /// What is known of an episode.
    pub fn episode(&self, key: &Key) -> Option<&Episode> {
        self.episodes.iter().find(|episode| episode.key == *key)
    }

    /// What belongs to the verdict where no episode is behind it.
    pub fn sentence(&self) -> &str {
        match (self.status, self.diagnosis.status) {
            // What this window would say alone is usual on this host, or has not come often enough to be believed.
            (Status::Ok, Status::Warning | Status::Critical) => "Nothing beyond what is usual here",
            _ => &self.diagnosis.summary,
        }
    }
}

/// How old the sweep of all sockets is that the window was judged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Why it was taken in this window, if it was.
    pub taken: Option<Why>,
    pub age: Duration,
}

impl Watch {
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            known: Known::of_a_row(),
            schedule: Schedule::default(),
            timeline: Timeline::default(),
            ticks: 0,
            unknown: 0,
            started: None,
            latest: None,
        }
    }

    /// Nobody looks on: what goes on is looked at more seldom.
    #[must_use]
    pub fn unattended(mut self) -> Self {
        self.schedule.unattended = true;
        self
    }

    /// Judges a window; `None` for one without a namespace. `dump` adds a look at all sockets to it, if it can;
    /// it is called at most once, if the window asks for it.
    pub fn tick(&mut self, window: &mut Window, dump: &mut Dump<'_>) -> Option<Tick> {
        let late = (window.late > window.interval / 4 && window.late > NOISE).then_some(window.late);
        let (mut diagnosis, mut around) = judge(&window.observation, &self.filter, &mut self.known)?;
        let mut taken = window.dumped.then_some(Why::Last);
        if taken.is_none() {
            let wanted = self.schedule.wants(&window.observation, &diagnosis);
            if let Some((why, which)) = wanted
                && let Some(dumped) = dump(&mut window.observation, &|id| which.contains(&id))
            {
                taken = Some(why);
                (diagnosis, around) = judge(&window.observation, &self.filter, &mut self.known)?;
                self.schedule.swept(&window.observation, &which, dumped.used);
            }
        } else {
            let all = window.observation.netns.keys().copied().collect();
            self.schedule.swept(&window.observation, &all, None);
        }
        let view = window.observation.view()?;
        let at = view.after().at;
        let started = *self.started.get_or_insert(view.before().at);
        self.latest = Some(at);
        self.ticks += 1;
        let learning = LEARNING.checked_sub(at.awake_since(started)).filter(|left| !left.is_zero());
        // What is left of a tick after one that came late shows next to nothing.
        let brief = diagnosis.window < window.interval / 4;
        let events = self.timeline.tick(at, &diagnosis, learning.is_none(), brief);
        let status = self.timeline.status().unwrap_or(match diagnosis.status {
            Status::Unknown => Status::Unknown,
            _ => Status::Ok,
        });
        self.unknown += u64::from(status == Status::Unknown);
        Some(Tick {
            number: self.ticks,
            at,
            interval: window.interval,
            late,
            sweep: Sweep { taken, age: at.mono.saturating_sub(view.after().dumped.mono) },
            learning,
            status,
            diagnosis,
            episodes: self.timeline.episodes().to_vec(),
            events,
            resets: resets::latest(&window.observation, &around, &self.filter),
            changes: changes::of_all(&window.observation, taken.is_some(), late),
        })
    }

    /// The next window is to have a sweep, because it will close a recording.
    pub fn sweep_next(&mut self) {
        self.schedule.ask();
    }

    /// Everything that was seen, what goes on first.
    pub fn episodes(&self) -> &[Episode] {
        self.timeline.episodes()
    }

    /// When the first window began; `None` before there was one.
    pub fn started(&self) -> Option<Moment> {
        self.started
    }

    /// When the latest window ended.
    pub fn latest(&self) -> Option<Moment> {
        self.latest
    }

    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Ticks in which too little was seen for a verdict.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// What it was restricted to.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// Adds a look at all sockets of these namespaces, if it can.
pub type Dump<'a> = dyn FnMut(&mut Observation, &dyn Fn(NetnsId) -> bool) -> Option<Dumped> + 'a;

/// A look at all sockets that was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dumped {
    /// CPU time that it took, where that is known.
    pub used: Option<Duration>,
}

/// The diagnosis of a window, and what decides the kind of the resets of each namespace.
fn judge(
    observation: &Observation,
    filter: &Filter,
    known: &mut Known,
) -> Option<(Diagnosis, BTreeMap<NetnsId, Surroundings>)> {
    let (diagnosis, evidence) = diagnose_each(observation, filter, &|| false, known)?;
    Some((diagnosis, evidence.into_iter().map(|(id, evidence)| (id, evidence.into_surroundings())).collect()))
}

/// A tick is not called late for less.
const NOISE: Duration = Duration::from_millis(100);
