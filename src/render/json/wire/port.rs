//! What is known of one port, in a report.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::shared::*;

/// One local port.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Port {
    pub number: u16,
    /// Who listens; null when that could not be seen.
    pub holders: Option<Vec<PortHolder>>,
    /// Other sockets with this local port, by state as `ss` spells it; null without a sweep.
    pub sockets: Option<BTreeMap<SocketState, u64>>,
    /// bind() needs root or CAP_NET_BIND_SERVICE.
    pub privileged: Option<bool>,
    /// An outgoing connection can take it.
    pub ephemeral: Option<bool>,
    /// Whether a new program could bind it.
    pub bind: Vec<PortBind>,
    /// Where it is, if not in the namespace of the one who looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PortHolder {
    pub address: String,
    /// Listening sockets that share the address by SO_REUSEPORT.
    pub sockets: usize,
    pub processes: Vec<Process>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PortBind {
    pub address: String,
    pub outcome: BindOutcome,
    /// Listeners in the way.
    pub blocked_by: Vec<String>,
    /// Why it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindOutcome {
    Succeeds,
    /// Only if both the old listener and the new program set SO_REUSEADDR; else EADDRINUSE.
    NeedsReuseaddr,
    /// EADDRINUSE.
    InUse,
    Unknown,
}
