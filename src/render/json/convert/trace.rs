//! Single resets, and the summary of a trace.

use super::shared::{container, end, located, plain, socket_state};
use crate::evidence::stated::stated_words;
use crate::render::json::rfc3339_millis;
use crate::render::json::wire::trace::*;
use crate::source::node::Location;
use crate::source::reset_events::Direction as Way;
use crate::source::reset_packets::Signature;
use crate::trace::{self, PortSide};

pub fn reset(reset: &trace::Reset) -> Line {
    let (reason, cause) = (reset.what.name(), reset.what.cause());
    let (event, ended) = (reset.joined.event.as_ref(), reset.end.as_ref());
    Line::Reset(Box::new(Reset {
        schema: SCHEMA,
        at: rfc3339_millis(reset.wall),
        direction: direction(reset.joined.direction()),
        local: reset.joined.local().map(end),
        peer: reset.joined.peer().map(end),
        reason,
        text: reset.words().into_owned(),
        cause,
        process: reset.process.as_ref().map(process),
        netns: reset.location.as_deref().map(located),
        container: reset.location.as_deref().and_then(Location::container).map(container),
        kernel_reason: event.and_then(|event| event.reason.clone()),
        state_before: reset.joined.state_before().map(socket_state),
        exiting: reset.exiting().then_some(true),
        traced: event.is_some(),
        namespace_unclear: reset.namespace_unclear().then_some(true),
        idle_s: ended.map(|end| end.idle.as_secs_f64()),
        pause_s: ended.and_then(|end| end.pause).map(|pause| pause.as_secs_f64()),
        bytes_in: ended.and_then(|end| end.bytes_in),
        bytes_out: ended.and_then(|end| end.bytes_out),
        unread: ended.map(|end| end.unread),
        unacknowledged: ended.map(|end| end.unacknowledged),
        unsent: ended.and_then(|end| end.unsent),
        error: reset.joined.errno.map(|errno| SocketError {
            errno: errno.0,
            name: errno.name(),
            text: errno.to_string(),
        }),
        packet: reset.joined.packet.as_ref().map(|packet| Packet {
            ttl: packet.ttl,
            ip_id: packet.ip_id,
            window: packet.window,
            flags: packet.flags,
            seq: packet.seq,
            ack: packet.ack,
            interface: packet.interface,
            stated: stated_words(packet),
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
            let (reason, text, cause) = (what.name(), what.words(), what.cause());
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
        peers: counts(summary.peers.top(MOST).0, |peer, count| PeerCount { address: plain(peer), count }),
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
    use crate::render::json;
    use crate::trace::testing::{event, joined, packet};

    fn value(line: &Line) -> Value {
        serde_json::from_str(&json::line(line).expect("serializable")).expect("JSON")
    }

    #[test]
    fn every_kind_of_line_is_valid_and_one_line() {
        let schema: Value = serde_json::from_str(&json::trace_schema()).expect("schema is JSON");
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
            let text = json::line(line).expect("serializable");
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
