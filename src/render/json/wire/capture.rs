//! What a capture holds.

use schemars::JsonSchema;
use serde::Serialize;

/// The connections of a capture, counted as tshark counts them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Capture {
    /// Packets of all kinds.
    pub packets: u64,
    pub tcp_packets: u64,
    /// tcp.stream of tshark.
    pub connections: u64,
    /// Packets with RST.
    pub resets: u64,
    pub resets_by_initiator: u64,
    pub resets_by_acceptor: u64,
    /// ICMP errors about TCP.
    pub icmp_errors: u64,
    /// Captured again at a second place; they are counted above.
    pub duplicates: u64,
    /// pcap, pcapng or text.
    pub format: String,
    /// Why the file was not read to its end; absent where it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// What a second capture, at the other end, adds; the counts above are those of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<BothEnds>,
    /// Connections that were reset, refused or not answered, in the order in which they began, 1,000 at most.
    pub flows: Vec<CapturedFlow>,
    pub flows_left_out: u64,
    /// Connections that were let go before they ended, because more were open than can be followed.
    pub let_go: u64,
    /// Connections of which nothing is kept: a later packet of one of them counts as one more connection.
    pub forgotten: u64,
}

/// Two captures of the same connections.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BothEnds {
    /// Connections that both hold.
    pub joined: u64,
    /// Those that have other addresses at the other end.
    pub translated: u64,
    pub only_first: u64,
    pub only_second: u64,
    /// The clock of the second less that of the first, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_s: Option<f64>,
    /// RSTs that left one end and arrived at the other.
    pub sent_and_received: u64,
    /// RSTs of something between the two.
    pub received_never_sent: u64,
    pub sent_never_received: u64,
    pub changed: u64,
    pub second_packets: u64,
    pub second_connections: u64,
    pub second_resets: u64,
}

/// RSTs of this host, set against a capture of the other end.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OtherEnd {
    /// RSTs that left one end and arrived at the other.
    pub sent_and_received: u64,
    /// RSTs that arrived here and that the other end never sent: of something between the two.
    pub received_never_sent: u64,
    /// RSTs that left this end and never arrived.
    pub sent_never_received: u64,
    /// RSTs whose connection, or whose time, that capture does not have.
    pub not_captured: u64,
    /// RSTs whose connection has other addresses at the other end.
    pub translated: u64,
    /// The clock of the capture less this host's, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_s: Option<f64>,
    /// That capture lacks other packets, too.
    pub lossy: bool,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CapturedFlow {
    /// tcp.stream of tshark.
    pub stream: u64,
    pub initiator: CapturedEnd,
    pub acceptor: CapturedEnd,
    /// On which of the two the capture was made, as far as it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captured_at: Option<String>,
    /// When its first packet came, RFC 3339.
    pub started_at: String,
    pub duration_s: f64,
    /// Who sent the first RST that is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_by: Option<String>,
    /// When the first RST came: refused, in-handshake, before-request, waiting-for-answer, in-transfer, idle, after-fin, lone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Without a packet before the first RST, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<f64>,
    /// What became of it, the most telling first.
    pub readings: Vec<CapturedReading>,
    pub rst: Vec<CapturedRst>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CapturedEnd {
    pub address: String,
    pub port: u16,
    pub packets: u64,
    pub bytes: u64,
    pub resets: u64,
    pub retransmissions: u32,
    pub zero_windows: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CapturedReading {
    pub story: String,
    /// Plain words.
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub harmless: bool,
    /// What it may be as well, by id.
    pub others: Vec<String>,
    pub because: Vec<String>,
    /// What a capture does not tell of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
}

/// One RST.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CapturedRst {
    /// initiator or acceptor, by its address.
    pub by: String,
    pub phase: String,
    /// It is not of the side whose address it carries.
    pub forged: bool,
    pub window: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_id: Option<u16>,
    /// Since the packet before it, seconds.
    pub after_s: f64,
    /// Bytes of the other side that it does not acknowledge.
    pub unacknowledged: u32,
}

/// Where the evidence comes from, where that is no host and no recording of one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Coverage {
    /// capture, text, bundle or store.
    pub kind: String,
    /// The sources that it holds.
    pub sources: Vec<String>,
}
