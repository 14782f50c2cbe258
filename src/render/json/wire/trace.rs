//! `rstdoctor/trace/v1`: NDJSON, one object per line. Its `type` says what the line is. What is not known is absent.

use schemars::JsonSchema;
use serde::Serialize;

use super::shared::{CauseId, Container, End, Netns, SocketState};

/// Name and version of the format.
pub const SCHEMA: &str = "rstdoctor/trace/v1";

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    Reset(Box<Reset>),
    Gap(Gap),
    Summary(Box<Summary>),
}

/// One reset. Between two programs of this host it is sent by one and received by the other: two lines.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Reset {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    /// RFC 3339, UTC.
    pub at: String,
    pub direction: Direction,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<End>,
    /// Stable name of the reason.
    pub reason: &'static str,
    /// The reason in plain words.
    pub text: String,
    /// Id of the cause that `rstdoctor explain` describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Where it was, if not in the network namespace of the one who looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Symbol of `enum sk_rst_reason` without prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_reason: Option<String>,
    /// State of the connection that the reset ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_before: Option<SocketState>,
    /// The process was exiting or being killed; absent if not, or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exiting: Option<bool>,
    /// The kernel's event of it was seen.
    pub traced: bool,
    /// It may belong to another network namespace of this host; absent if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_unclear: Option<bool>,
    /// How long the connection had been without data; too long by up to 0.05 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<f64>,
    /// How long before its last use, to which nothing came in answer; from 1 s on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_s: Option<f64>,
    /// Payload that the connection had received, and sent, in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Bytes received that the process never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<u32>,
    /// Bytes written that the peer never acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<u32>,
    /// Those of them that were never sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsent: Option<u32>,
    /// What the program on this side gets from its next call, where the kernel told (Linux 5.14 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SocketError>,
    /// Its packet, if it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Sent,
    Received,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Process {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub basis: Basis,
}

/// How a process was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The kernel named it as the one that caused the reset.
    Event,
    /// It held the connection when that was looked up, some seconds before.
    Connection,
    /// It listens on the local port.
    Listener,
}

/// An error number of Linux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SocketError {
    pub errno: u16,
    /// `ECONNRESET`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// What programs write into their logs: `Connection reset by peer (104)`.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Packet {
    /// IPv4 TTL or IPv6 hop limit as seen on this host.
    pub ttl: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_id: Option<u16>,
    /// Not scaled.
    pub window: u16,
    /// Flags byte of the TCP header.
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// Interface index.
    pub interface: u32,
    /// What it says of its own reason, in its data (RFC 9293, 3.5.3; draft-ietf-tcpm-rst-diagnostic-payload) or an option of
    /// Multipath TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated: Option<String>,
    pub form: Form,
}

/// Which code builds a RST of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A socket that gives up its own connection.
    Active,
    /// An answer to a segment, by TCP or netfilter.
    Answer,
    /// Not Linux.
    Foreign,
}

/// Resets are missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Gap {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    /// The output could not keep up, or they came faster than they could be examined.
    pub not_shown: u64,
    /// The kernel had no room for them; on the whole host, whatever the filter.
    pub lost: u64,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    pub started_at: String,
    pub duration_s: f64,
    /// Resets that matched the filter, shown or not.
    pub total: u64,
    pub sent: u64,
    pub received: u64,
    /// Of `total`, those for which the output had no room.
    pub not_shown: u64,
    /// Came faster than they could be examined: not in `total`, not filtered.
    pub not_examined: u64,
    /// The kernel counted them but their records were lost: not in `total`, but for those whose packet was seen; on the whole
    /// host, not filtered.
    pub lost: u64,
    /// Resets that the kernel's tracepoints counted, on the whole host, not filtered: `total` less `packet_only`, plus
    /// `passed_over`, `not_examined` and `lost`. Absent without tracepoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// Counted and read, but of another network namespace, not matching the filter, or no reset after all.
    pub passed_over: u64,
    /// Of `total`, those of which only the packet was seen.
    pub packet_only: u64,
    /// Packets for which the packet socket had no room.
    pub packets_lost: u64,
    /// Packets that were not looked at while there were very many events.
    pub packets_left: u64,
    /// RST packets that only passed through this host.
    pub forwarded: u64,
    pub reasons: Vec<ReasonCount>,
    /// The most frequent ones, as in the lists below.
    pub ports: Vec<PortCount>,
    pub processes: Vec<ProcessCount>,
    pub peers: Vec<PeerCount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReasonCount {
    pub direction: Direction,
    pub reason: &'static str,
    pub text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CauseId>")]
    pub cause: Option<&'static str>,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PortCount {
    /// Whose port it is: a service of this host, or of the peer.
    pub side: Side,
    pub port: u16,
    pub count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Local,
    Peer,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProcessCount {
    #[serde(flatten)]
    pub process: Process,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PeerCount {
    pub address: String,
    pub count: u64,
}
