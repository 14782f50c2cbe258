//! The network namespaces of a node, in a report.

use schemars::JsonSchema;
use serde::Serialize;

use super::report::Verdict;
use super::shared::{Container, Netns};

/// One network namespace of a node, with its own verdict. The totals of the report are the sums of those of all.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Namespace {
    pub netns: Netns,
    /// It is that of the one who looks.
    pub own: bool,
    /// It ended in the window.
    pub gone: bool,
    /// A process in it; absent where none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub containers: Vec<Container>,
    pub verdict: Verdict,
    pub resets_sent: Option<u64>,
    pub resets_received: Option<u64>,
    pub connections_dropped: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NodeCoverage {
    /// Network namespaces that were looked into.
    pub looked: u64,
    /// Those that are known, these included.
    pub known: u64,
    /// There may be others, in which only processes are that this user may not read.
    pub may_have_more: bool,
    /// The processes of the host are not visible: this is a container.
    pub in_container: bool,
    /// What would let one look into the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}
