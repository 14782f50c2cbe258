//! What happens to an episode, and what is told of it then.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Root;
use crate::cause::{Severity, State};
use crate::timeline::place::Key;
use crate::value::Moment;

/// Something that happened to an episode, at the end of a tick's window.
#[derive(Debug, Clone)]
pub struct Event {
    pub what: What,
    /// When; of an end, when the last window in which it was found ended.
    pub at: Moment,
    pub key: Key,
    pub title: &'static str,
    pub severity: Severity,
    pub state: State,
    /// It never was a fault so far, see [`harmless`](super::Episode::harmless).
    pub harmless: bool,
    /// The sentence of the finding.
    pub summary: String,
    pub per_s: f64,
    pub unit: &'static str,
    /// Of an end: how long it went on, and how much there was.
    pub lasted: Duration,
    pub events: u64,
    /// How often it came.
    pub times: u32,
    pub root: Option<Root>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Appeared,
    /// It had ended and is back.
    Again,
    Worsened,
    Eased,
    Ended,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Again => "again",
            Self::Worsened => "worsened",
            Self::Eased => "eased",
            Self::Ended => "ended",
        }
    }
}
