//! The part of a report that only a live view has: a tick in the row of ticks.

use schemars::JsonSchema;
use serde::Serialize;

use super::shared::{CauseId, Place, Severity, State, VerdictStatus};

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
    /// Why it was taken with this tick; absent if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<SweepReason>,
    pub age_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Event {
    pub what: EventKind,
    /// End of the tick's window; of an end, of the last window in which it was found.
    pub at: String,
    #[schemars(with = "CauseId")]
    pub id: String,
    pub place: Place,
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
    pub kind: ChangeKind,
    /// One plain clause.
    pub text: String,
}

/// A cause at one place over time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Episode {
    #[schemars(with = "CauseId")]
    pub id: String,
    pub place: Place,
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

/// Why all sockets were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepReason {
    First,
    /// A cause was found, and wants to name who.
    Cause,
    /// Other listeners than at the last look.
    Listeners,
    /// The number of sockets moved much.
    Sockets,
    /// The last look is old.
    Age,
    /// Somebody wants to save what was seen.
    Asked,
    /// It closes a recording.
    Last,
}

/// What happened to a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Appeared,
    /// It had ended and is back.
    Again,
    Worsened,
    Eased,
    Ended,
}

/// What else changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// The tick came late.
    Late,
    ClockSet,
    Suspended,
    CountersReset,
    SysctlChanged,
    ListenerAppeared,
    ListenerGone,
    /// Another socket listens at the same place: a restart or a reload.
    ListenerReplaced,
    ListenerMoved,
    BacklogChanged,
    /// Another program in the same process.
    ProcessReplaced,
    NamespaceGone,
    /// A network namespace came, which is looked into from now on.
    NamespaceAppeared,
}
