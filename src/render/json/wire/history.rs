//! `rstdoctor/history/v1`: what a store holds of some time.

use schemars::JsonSchema;
use serde::Serialize;

use super::report::{Basis, Tool};
use super::shared::{CauseId, Severity, State, VerdictStatus};

/// Name and version of the format.
pub const SCHEMA: &str = "rstdoctor/history/v1";

/// What happened in some time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct History {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    pub tool: Tool,
    pub hostname: Option<String>,
    pub since: String,
    pub until: String,
    /// The recorder replaced addresses and names.
    pub redacted: bool,
    /// The worst verdict of the time; null if nothing was recorded.
    pub worst: Option<VerdictStatus>,
    pub ticks: u32,
    /// Of these, those in which too little was seen for a verdict.
    pub ticks_unknown: u32,
    /// What was not recorded, or cannot be read.
    pub missing: Vec<Missing>,
    /// Of what not all raw evidence could be written.
    pub raw_missing: Vec<Missing>,
    /// What is wrong with the store, in words.
    pub problems: Vec<String>,
    /// With --process: whether what was recorded of the time names such a process at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_named: Option<bool>,
    /// The time of services and ledger, where it is longer than what was asked for: ticks, and minutes in which nothing was wrong,
    /// are counted whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<Span>,
    /// In the order in which they began, those that are no fault included.
    pub episodes: Vec<Episode>,
    /// Those with the most failures first.
    pub services: Vec<Service>,
    pub ledger: Ledger,
    /// What changed besides causes.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Span {
    pub from: String,
    pub until: String,
}

/// A time of which nothing, or not all, is known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Missing {
    pub from: String,
    pub until: String,
    /// Where the recorder ran nevertheless: it could not write, or what it wrote cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The episode of the same list that explains another one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BecauseOf {
    #[schemars(with = "CauseId")]
    pub id: String,
    pub place: Place,
    /// Its place in the list of episodes, from 1; absent where it is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episode: Option<usize>,
}

/// A cause at one place from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Episode {
    #[schemars(with = "CauseId")]
    pub id: String,
    pub title: String,
    pub place: Place,
    pub severity: Severity,
    pub state: State,
    /// It is something that went wrong, rather than what explains numbers.
    pub fault: bool,
    pub from: String,
    pub until: String,
    pub duration_s: f64,
    /// It was there when the recorder began: it may be older.
    pub from_start: bool,
    pub ending: Ending,
    /// The deeper cause that explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because_of: Option<BecauseOf>,
    pub events: u64,
    pub unit: String,
    pub peak_per_s: f64,
    /// Connections of the place in the worst window, and those that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    pub summary: String,
    /// What showed it, and what to do about it, in plain words.
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Ended,
    GoesOn,
    /// No recorder ran when it ended, or none runs now: it was seen until `until`.
    NotSeen,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Place {
    /// `port 8080`, `10.0.0.1:5432`, `process api`; empty for the host.
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Service {
    pub place: Place,
    pub address: String,
    /// Connections that ended or failed; absent where that was not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// An upper bound of attempts that were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<u64>,
    /// Longest accept queue.
    pub queue: u32,
    pub backlog: u32,
    /// Connections that failed or were lost in each equal part of the time; null where nothing was recorded of the service.
    pub failed: Vec<Option<u64>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Ledger {
    /// Something less than all was asked for, and these are of all ports, processes and namespaces nevertheless.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unfiltered: bool,
    pub sent: Option<u64>,
    pub sent_unexplained: Option<u64>,
    pub received: Option<u64>,
    pub firewall: Option<u64>,
    pub connections_dropped: Option<u64>,
    pub by_reason: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Line {
    /// sent, received, firewall, dropped.
    pub direction: String,
    pub reason: String,
    pub count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub cause: Option<String>,
    pub basis: Basis,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Change {
    pub at: String,
    pub text: String,
}

/// Name and version of what a hook reads.
pub const EVENT_SCHEMA: &str = "rstdoctor/event/v1";

/// What happened to an episode.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookEvent {
    pub schema: &'static str,
    pub hostname: Option<String>,
    /// appeared, again, worsened, ended; explained: what it follows from is known now.
    pub what: &'static str,
    pub at: String,
    pub since: String,
    pub id: String,
    pub title: String,
    pub place: Place,
    pub severity: Severity,
    pub state: State,
    /// The deeper cause that explains it, where that was told as well and is no milder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because_of: Option<BecauseOf>,
    pub summary: String,
    pub per_s: f64,
    pub unit: String,
    /// Since `since`.
    pub events: u64,
    /// How often it was told to have begun.
    pub times: u32,
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
    /// Events before it that were not told, because there were too many.
    pub left_out: u64,
}
