//! The part of a report that only a live view has: a tick in the row of ticks.

use schemars::JsonSchema;
use serde::Serialize;

use super::convert::{rounded, severity, state, status};
use super::wire::{Report, Severity, State, VerdictStatus};
use super::{report, rfc3339_millis};
use crate::timeline::{self, Phase};

/// One tick of a live view. The rest of the report judges the window of this tick alone; this remembers the ones before.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Watch {
    /// From 1.
    pub tick: u64,
    /// The verdict without flicker: that of the episodes that go on.
    pub status: VerdictStatus,
    /// How long after its time on the grid the tick came, if it was late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_s: Option<f64>,
    /// Seconds until enough was seen to call a rate usual; absent afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_s: Option<f64>,
    pub sweep: Sweep,
    /// What happened to causes with this tick.
    pub events: Vec<Event>,
    /// What else changed: clocks, settings, listeners, processes.
    pub changes: Vec<Change>,
    /// What goes on, and what ended in the last 10 minutes.
    pub episodes: Vec<Episode>,
}

/// The look at all sockets that the window was judged with.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Sweep {
    /// Why it was taken with this tick (`first`, `cause`, `listeners`, `sockets`, `age`, `asked`,
    /// `last`); absent if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
    pub age_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Event {
    /// `appeared`, `again`, `worsened`, `eased`, `ended`.
    pub what: String,
    /// End of the tick's window; of an end, of the last window in which it was found.
    pub at: String,
    pub id: String,
    /// `port 8080`, `10.0.0.1:5432`, `process api`; absent for the whole host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub severity: Severity,
    pub state: State,
    pub summary: String,
    pub per_s: f64,
    /// How long it has gone on, or went on.
    pub lasted_s: f64,
    /// All events of the episode.
    pub events: u64,
    /// How often it came.
    pub times: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Change {
    pub at: String,
    /// `late`, `clock-set`, `suspended`, `counters-reset`, `sysctl-changed`, `listener-appeared`, `listener-gone`,
    /// `listener-replaced`, `listener-moved`, `backlog-changed`, `process-replaced`, `namespace-gone`.
    pub kind: String,
    /// One plain clause.
    pub text: String,
}

/// A cause at one place over time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Episode {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub phase: EpisodePhase,
    pub severity: Severity,
    pub state: State,
    pub since: String,
    /// It was there in the first window already: when it began is not known.
    pub from_start: bool,
    /// End of the last window in which it was found.
    pub last: String,
    pub times: u32,
    pub events: u64,
    pub peak_per_s: f64,
    /// The usual rate here, once enough was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_per_s: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EpisodePhase {
    Active,
    Quiet,
    Ended,
}

/// The report of one tick.
pub fn tick(tick: &timeline::Tick) -> Report {
    let watch = Watch {
        tick: tick.number,
        status: status(tick.status),
        late_s: tick.late.map(|late| rounded(late.as_secs_f64())),
        learning_s: tick.learning.map(|left| rounded(left.as_secs_f64())),
        sweep: Sweep {
            taken: tick.sweep.taken.map(|why| why.name().to_owned()),
            age_s: rounded(tick.sweep.age.as_secs_f64()),
        },
        events: tick.events.iter().map(event).collect(),
        changes: tick.changes.iter().map(change).collect(),
        episodes: tick.episodes.iter().map(episode).collect(),
    };
    Report { watch: Some(watch), ..report(&tick.diagnosis) }
}

fn place(key: &timeline::Key) -> Option<String> {
    Some(key.place.to_string()).filter(|place| !place.is_empty())
}

fn event(event: &timeline::Event) -> Event {
    Event {
        what: event.what.name().to_owned(),
        at: rfc3339_millis(event.at.wall),
        id: event.key.id.to_owned(),
        place: place(&event.key),
        severity: severity(event.severity),
        state: state(event.state),
        summary: event.summary.clone(),
        per_s: rounded(event.per_s),
        lasted_s: rounded(event.lasted.as_secs_f64()),
        events: event.events,
        times: event.times,
    }
}

fn change(change: &timeline::Change) -> Change {
    Change { at: rfc3339_millis(change.at.wall), kind: change.kind.name().to_owned(), text: change.text.clone() }
}

fn episode(episode: &timeline::Episode) -> Episode {
    Episode {
        id: episode.key.id.to_owned(),
        place: place(&episode.key),
        phase: match episode.phase {
            Phase::Active => EpisodePhase::Active,
            Phase::Quiet => EpisodePhase::Quiet,
            Phase::Ended => EpisodePhase::Ended,
        },
        severity: severity(episode.severity),
        state: state(episode.latest.finding.state),
        since: rfc3339_millis(episode.since.wall),
        from_start: episode.from_start,
        last: rfc3339_millis(episode.last.wall),
        times: episode.times,
        events: episode.events,
        peak_per_s: rounded(episode.peak_per_s),
        usual_per_s: episode.usual.map(|usual| rounded(usual.mean)),
    }
}
