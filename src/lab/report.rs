//! What a scenario hands to the runner: one JSON line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counters::Movement;
use super::findings::Findings;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Fail,
    /// It could not run here.
    Skipped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub status: Status,
    /// Why it is not a plain pass, or what else is worth saying.
    pub reason: String,
    /// The id of the cause that must come first; `None` for a healthy host.
    #[serde(default)]
    pub expected: Option<String>,
    /// Ids of further faults that were made at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Outcomes that the client programs met, each with its count.
    pub experienced: BTreeMap<String, u64>,
    pub findings: Option<Findings>,
    /// Of each tick, with --interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ticks: Vec<Findings>,
    /// With less evidence, by the name of the level, with --levels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, Findings>,
    pub counters: Movement,
    /// Seconds from start to verdict.
    pub took_s: f64,
}

impl Report {
    pub fn without_run(name: &str, expected: Option<&str>, status: Status, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status,
            reason: reason.into(),
            expected: expected.map(str::to_owned),
            also: Vec::new(),
            experienced: BTreeMap::new(),
            findings: None,
            ticks: Vec::new(),
            levels: BTreeMap::new(),
            counters: Movement::default(),
            took_s: 0.0,
        }
    }
}
