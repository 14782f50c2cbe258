//! `rstdoctor/report/v1`: one diagnosis.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::capture::{Capture, Coverage, OtherEnd};
pub use super::node::*;
pub use super::port::*;
pub use super::shared::*;
use super::watch::Watch;

/// Name and version of the format.
pub const SCHEMA: &str = "rstdoctor/report/v1";

/// One diagnosis.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    pub tool: Tool,
    pub host: Host,
    pub window: Window,
    /// How each source of evidence went.
    pub sources: Vec<Source>,
    pub verdict: Verdict,
    /// Most important first.
    pub causes: Vec<Cause>,
    pub ruled_out: Vec<RuledOut>,
    pub not_checked: Vec<NotChecked>,
    pub ledger: Ledger,
    /// The fullest first, 1,000 at most.
    pub listeners: Vec<Listener>,
    /// Further listeners, none of them fuller.
    pub listeners_left_out: u64,
    pub sockets: Sockets,
    /// Kernel limits by the last part of their sysctl name; several numbers as a list.
    pub limits: BTreeMap<String, Limit>,
    /// Counters that a cause or the ledger used.
    pub counters: BTreeMap<String, Counter>,
    /// What was asked for with --port, --pid and --process; absent without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// With --port: everything about that port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Instead of `port`, where several were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Port>>,
    /// Where the evidence comes from; absent for a host and for a recording of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Of a capture: its connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// Of a recording with a capture of the other end: what that capture has of the RSTs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_end: Option<OtherEnd>,
    /// Of a whole node: its network namespaces, that of the one who looks first. Absent where one alone was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<Namespace>>,
    /// How much of the node was looked at; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeCoverage>,
    /// In a live view: this tick in the row of ticks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Tool {
    pub name: String,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Host {
    pub hostname: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    pub uptime_s: Option<f64>,
    pub netns: Netns,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Window {
    pub started_at: String,
    /// 0 when only totals since boot were read: then no delta means anything.
    pub duration_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Source {
    pub name: String,
    pub status: SourceStatus,
    /// Why it is not `ok`; of one that is, what it lacks all the same, or by which way it was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would make it available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// Differs from run to run, also when a recording is replayed.
    pub took_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    Ok,
    Unavailable,
    Partial,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Verdict {
    pub status: VerdictStatus,
    /// One plain sentence.
    pub summary: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Cause {
    /// From 1.
    pub rank: usize,
    #[schemars(with = "CauseId")]
    pub id: String,
    pub title: String,
    pub state: State,
    pub severity: Severity,
    /// Probability that this is what happens.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence: f64,
    /// One plain clause with the subject and the number.
    pub summary: String,
    pub impact: Impact,
    pub place: Place,
    pub subjects: Vec<Subject>,
    pub evidence: Vec<Evidence>,
    pub counter_evidence: Vec<Evidence>,
    pub remedies: Vec<Remedy>,
    /// Id of the deeper cause that explains this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub because_of: Option<String>,
    /// Its rank: the same cause may be found at several places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because_of_rank: Option<usize>,
    /// The limit of the accept queue that binds, where the cause is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding_limit: Option<BindingLimit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Impact {
    pub events: u64,
    pub per_s: f64,
    pub unit: String,
    #[serde(flatten)]
    pub harm: Harm,
}

/// How many connections of a place failed in the window, of how many. Absent where nothing counted them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct Harm {
    /// Connections of the place in the window: those that ended in it, those still open, and connects that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Those of them that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// `failures` by `attempts`, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Where the true share lies with 95 % certainty (Wilson's score interval).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// With the windows before, in a row of them, where this one alone tells too little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lately: Option<Lately>,
}

/// Connections of a place in the windows of the last half minute, this one included.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Lately {
    pub attempts: u64,
    pub failures: u64,
    /// How long these windows were, seconds.
    pub over_s: f64,
}

/// Who or what a cause is about.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Subject {
    pub kind: SubjectKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Events that fall on this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    Listener,
    Process,
    Peer,
    Connection,
    Path,
    Host,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Evidence {
    pub source: String,
    pub metric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// The same in plain words.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Remedy {
    /// In plain words.
    pub text: String,
    pub kind: RemedyKind,
    /// Of a `shell` remedy: one line for a POSIX shell, to be pasted or run as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Of a `config` remedy: the file that the line belongs into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file, or in the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Of a `config` or `code` remedy: what to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The network namespace in which `command` has to run; absent where that does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// A shell command that makes it survive a reboot, where `command` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<String>,
    pub restart: Restart,
    /// How to see that it worked, in words; begins with `verify_command` where there is one.
    pub verify: String,
    /// The shell command that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_command: Option<String>,
}

/// What a remedy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RemedyKind {
    /// A command to run.
    Shell,
    /// A line of a program's configuration.
    Config,
    /// A change of the program's source.
    Code,
    /// What only the text says.
    Advice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    None,
    Reload,
    Service,
    Host,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RuledOut {
    #[schemars(with = "CauseId")]
    pub id: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NotChecked {
    #[schemars(with = "CauseId")]
    pub id: String,
    /// Names of the sources that are missing.
    pub missing: Vec<String>,
    pub reason: String,
    /// What would make it possible; null if nothing would.
    pub needs: Option<String>,
}

/// Every reset accounted for.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Ledger {
    pub sent: Sent,
    pub received: Received,
    /// RSTs on the wire that TCP did not count.
    pub firewall: Firewall,
    pub connections_dropped: Dropped,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Sent {
    pub total: Option<u64>,
    pub by_reason: Vec<ByReason>,
    pub unexplained: Option<u64>,
    /// By how much the reasons exceed the total, where they do: events and counters are read a moment apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excess: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Received {
    pub total: Option<u64>,
    pub by_state: Vec<ByState>,
    pub basis: Basis,
    pub unexplained: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Firewall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    pub basis: Basis,
}

/// Connection attempts lost without a RST.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Dropped {
    pub total: Option<u64>,
    pub by_reason: Vec<ByReason>,
    pub unexplained: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ByReason {
    pub reason: String,
    pub count: u64,
    /// Id of the cause that this reason belongs to, when there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub cause: Option<String>,
    pub basis: Basis,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ByState {
    /// What the connection was doing when the RST came.
    pub state: String,
    pub count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub cause: Option<String>,
    pub basis: Basis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The kernel reported each with its reason, or counted exactly this.
    Measured,
    /// From the kernel's call chain, or from the form of the packet, of each single one.
    Deduced,
    /// Concluded from counters that also move for other reasons.
    Inferred,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Listener {
    pub address: String,
    pub port: u16,
    /// Longest accept queue in the window, connections.
    pub recv_q: u32,
    /// Limit of the accept queue; the kernel admits one more.
    pub send_q: u32,
    /// `recv_q` as a share of what fits: 1 is full.
    pub fill: f64,
    /// In the window, an upper bound of lost connections.
    pub drops: Option<u64>,
    pub binding_limit: Option<BindingLimit>,
    /// Half-open requests.
    pub syn_recv: Option<u64>,
    pub processes: Vec<Process>,
    /// Of its clients' connections, those that this host failed.
    #[serde(flatten)]
    pub harm: Harm,
    /// Where it is, if not in the namespace of the one who looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BindingLimit {
    Application,
    Somaxconn,
    Stale,
}

/// TCP sockets by state, at the end of the window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct Sockets {
    pub established: Option<u64>,
    pub syn_sent: Option<u64>,
    pub syn_recv: Option<u64>,
    pub fin_wait1: Option<u64>,
    pub fin_wait2: Option<u64>,
    pub time_wait: Option<u64>,
    pub close: Option<u64>,
    pub close_wait: Option<u64>,
    pub last_ack: Option<u64>,
    pub closing: Option<u64>,
    /// Sockets without a process, of the whole host.
    pub orphan: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Limit {
    Number(u64),
    Numbers(Vec<u64>),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Counter {
    /// Since boot.
    pub total: u64,
    /// In the window; null when the counter went backwards.
    pub delta: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Instead of `port`, where several were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}
