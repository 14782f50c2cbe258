//! What several documents say alike.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::cause::REGISTRY;

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Netns {
    /// Inode of /proc/PID/ns/net, while the host runs the name of it that never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// As `ip netns` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A container, by the files of its runtime; what they do not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Container {
    pub id: String,
    /// As its runtime, or the manifest of its pod, names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `docker`, `podman`, `containerd`, `cri-o`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The namespace of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Project and service of a compose file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_service: Option<String>,
}

/// An end of a connection, or where something listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct End {
    pub address: String,
    pub port: u16,
}

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    /// systemd unit, as systemd spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Where a cause happens. `kind` says which of the other members tells it from others of the same cause; the rest is what is
/// known besides. Two places are the same if their `kind`, `port`, `peer`, `process.name` and `netns.inode` are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Place {
    pub kind: PlaceKind,
    /// The served port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The listener of that port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<End>,
    /// The remote end that this host calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<PlaceProcess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// A served port: `port`.
    Port,
    /// A remote end: `peer`.
    Peer,
    /// A program: `process.name`.
    Process,
    /// The whole host, or namespace.
    Host,
}

/// A process of a place; of a program with several processes, one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlaceProcess {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictStatus {
    Ok,
    Warning,
    Critical,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Moved in the window.
    Active,
    /// Since boot only.
    Past,
    /// Nothing moved yet; it will bite.
    Risk,
    /// Explains numbers and is no fault.
    Benign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

/// State of a TCP socket, as `ss` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum SocketState {
    #[serde(rename = "ESTABLISHED")]
    Established,
    #[serde(rename = "SYN_SENT")]
    SynSent,
    #[serde(rename = "SYN_RECV")]
    SynRecv,
    #[serde(rename = "FIN_WAIT1")]
    FinWait1,
    #[serde(rename = "FIN_WAIT2")]
    FinWait2,
    #[serde(rename = "TIME_WAIT")]
    TimeWait,
    #[serde(rename = "CLOSE")]
    Close,
    #[serde(rename = "CLOSE_WAIT")]
    CloseWait,
    #[serde(rename = "LAST_ACK")]
    LastAck,
    #[serde(rename = "LISTEN")]
    Listen,
    #[serde(rename = "CLOSING")]
    Closing,
    #[serde(rename = "NEW_SYN_RECV")]
    NewSynRecv,
}

/// Id of a cause. The schema lists those of this version; a later one may know more.
pub enum CauseId {}

impl JsonSchema for CauseId {
    fn schema_name() -> Cow<'static, str> {
        "CauseId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ids: Vec<_> = REGISTRY.iter().map(|cause| cause.id).collect();
        json_schema!({ "description": "Id of a cause, see `rstdoctor explain`.", "type": "string", "enum": ids })
    }
}
