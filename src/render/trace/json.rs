//! `rstdoctor/trace/v1`: NDJSON, one object per line. Its `type` says what the line is. Frozen wire types, only ever extended;
//! what is not known is absent.

use schemars::JsonSchema;
use serde::Serialize;

use crate::render::json::{escaped, rfc3339_millis};
use crate::source::reset_events::{Direction as Way, Place};
use crate::source::reset_packets::Signature;
use crate::trace::{self, PortSide};

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
    /// Always `rstdoctor/trace/v1`.
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
    pub cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Symbol of `enum sk_rst_reason` without prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_reason: Option<String>,
    /// State of the connection that the reset ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_before: Option<&'static str>,
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
pub struct End {
    pub address: String,
    pub port: u16,
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
    pub schema: &'static str,
    /// The output could not keep up, or they came faster than they could be examined.
    pub not_shown: u64,
    /// The kernel had no room for them; on the whole host, whatever the filter.
    pub lost: u64,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
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

/// One line with its newline. What a terminal acts on or hides is a JSON escape.
///
/// # Errors
/// None in practice: every line can be serialized.
pub fn text(line: &Line) -> Result<String, serde_json::Error> {
    let mut text = escaped(&serde_json::to_string(line)?);
    text.push('\n');
    Ok(text)
}

/// The JSON Schema of [`Line`], as pretty JSON with a newline at the end.
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(Line)).unwrap_or_default();
    text.push('\n');
    text
}

pub fn reset(reset: &trace::Reset) -> Line {
    let (reason, _, cause) = reset.what.describe();
    let (event, ended) = (reset.event.as_ref(), reset.end.as_ref());
    Line::Reset(Box::new(Reset {
        schema: SCHEMA,
        at: rfc3339_millis(reset.wall),
        direction: direction(reset.direction()),
        local: reset.local().map(end),
        peer: reset.peer().map(end),
        reason,
        text: reset.words().into_owned(),
        cause,
        process: reset.process.as_ref().map(process),
        kernel_reason: event.and_then(|event| event.reason.clone()),
        state_before: reset.state_before().map(|state| state.name()),
        exiting: reset.exiting().then_some(true),
        traced: event.is_some(),
        namespace_unclear: event.is_some_and(|event| event.place == Place::Unclear).then_some(true),
        idle_s: ended.map(|end| end.idle.as_secs_f64()),
        pause_s: ended.and_then(|end| end.pause).map(|pause| pause.as_secs_f64()),
        bytes_in: ended.and_then(|end| end.bytes_in),
        bytes_out: ended.and_then(|end| end.bytes_out),
        unread: ended.map(|end| end.unread),
        unacknowledged: ended.map(|end| end.unacknowledged),
        unsent: ended.and_then(|end| end.unsent),
        packet: reset.packet.as_ref().map(|packet| Packet {
            ttl: packet.ttl,
            ip_id: packet.ip_id,
            window: packet.window,
            flags: packet.flags,
            seq: packet.seq,
            ack: packet.ack,
            interface: packet.interface,
            form: match packet.signature() {
                Signature::Active => Form::Active,
                Signature::Answer => Form::Answer,
                Signature::Foreign => Form::Foreign,
            },
        }),
    }))
}

pub fn gap(lost: u64, not_shown: u64) -> Line {
    Line::Gap(Gap { schema: SCHEMA, not_shown, lost })
}

pub fn summary(summary: &trace::Summary) -> Line {
    const MOST: usize = 100;
    Line::Summary(Box::new(Summary {
        schema: SCHEMA,
        started_at: rfc3339_millis(summary.started),
        duration_s: summary.duration.as_secs_f64(),
        total: summary.total(),
        sent: summary.sent,
        received: summary.received,
        not_shown: summary.not_shown,
        not_examined: summary.not_examined,
        lost: summary.lost,
        counted: summary.counted,
        passed_over: summary.passed_over,
        packet_only: summary.packet_only,
        packets_lost: summary.packets_lost,
        packets_left: summary.packets_left,
        forwarded: summary.forwarded,
        reasons: counts(summary.reasons.top(usize::MAX).0, |(way, what), count| {
            let (reason, text, cause) = what.describe();
            ReasonCount { direction: direction(way), reason, text, cause, count }
        }),
        ports: counts(summary.ports.top(MOST).0, |(side, port), count| {
            let side = if side == PortSide::Local { Side::Local } else { Side::Peer };
            PortCount { side, port, count }
        }),
        processes: counts(summary.processes.top(MOST).0, |owner, count| ProcessCount {
            process: process(&owner),
            count,
        }),
        peers: counts(summary.peers.top(MOST).0, |peer, count| PeerCount { address: peer.to_string(), count }),
    }))
}

fn counts<K, T>(counts: Vec<(K, u64)>, convert: impl Fn(K, u64) -> T) -> Vec<T> {
    counts.into_iter().map(|(key, count)| convert(key, count)).collect()
}

fn direction(way: Way) -> Direction {
    match way {
        Way::Sent => Direction::Sent,
        Way::Received => Direction::Received,
    }
}

fn end(end: std::net::SocketAddr) -> End {
    End { address: end.ip().to_string(), port: end.port() }
}

fn process(process: &trace::Process) -> Process {
    Process {
        pid: process.pid,
        name: Some(process.name.clone()).filter(|name| !name.is_empty()),
        basis: match process.basis {
            trace::Basis::Event => Basis::Event,
            trace::Basis::Connection => Basis::Connection,
            trace::Basis::Listener => Basis::Listener,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::trace::testing::{event, joined, packet};

    fn value(line: &Line) -> Value {
        serde_json::from_str(&text(line).expect("serializable")).expect("JSON")
    }

    #[test]
    fn every_kind_of_line_is_valid_and_one_line() {
        let schema: Value = serde_json::from_str(&schema()).expect("schema is JSON");
        let validator = jsonschema::validator_for(&schema).expect("schema is sound");
        let ends = ("10.0.0.9:9000", "10.0.3.7:52144");
        let (event, packet) = (event(Way::Sent, ends.0, ends.1), packet(Way::Sent, ends.0, ends.1));
        let mut full = joined(Some(event.clone()), Some(packet.clone()));
        full.process = Some(trace::Process { pid: 7, name: "x\u{9b}\n".into(), basis: trace::Basis::Listener });
        let lines = [
            reset(&full),
            reset(&joined(Some(event), None)),
            reset(&joined(None, Some(packet))),
            gap(3, 12_345),
            summary(&trace::Summary::default()),
        ];
        for line in &lines {
            let errors: Vec<_> = validator.iter_errors(&value(line)).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
            let text = text(line).expect("serializable");
            assert_eq!(text.lines().count(), 1);
            assert!(!text.contains('\u{9b}'));
        }
        assert!(!validator.is_valid(&serde_json::json!({"type": "reset"})));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let line = value(&reset(&joined(Some(event(Way::Sent, "10.0.0.9:9000", "")), None)));
        assert_eq!((&line["type"], &line["direction"]), (&"reset".into(), &"sent".into()));
        assert_eq!((&line["local"]["address"], &line["local"]["port"]), (&"10.0.0.9".into(), &9000.into()));
        for key in ["peer", "process", "packet", "state_before", "exiting", "kernel_reason", "idle_s", "unread"] {
            assert!(line.get(key).is_none(), "{key}: {line}");
        }
    }
}
