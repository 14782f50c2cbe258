//! What a capture holds, as the report has it.

use super::shared::{plain, rounded};
use crate::capture::{Flow, Flows, Side, Told};
use crate::diagnosis::Diagnosis;
use crate::evidence::across::Across;
use crate::observation::Input;
use crate::render::json::rfc3339_millis;
use crate::render::json::wire::capture::{
    BothEnds, Capture, CapturedEnd, CapturedFlow, CapturedReading, CapturedRst, Coverage, OtherEnd,
};

/// Connections that a report tells one by one.
const MOST: usize = 1_000;

pub fn capture(flows: &Flows) -> Capture {
    // With two captures all are followed, to be joined.
    let told: Vec<_> = flows.told.iter().filter(|told| flows.ends.is_none() || !told.readings.is_empty()).collect();
    Capture {
        packets: flows.packets,
        tcp_packets: flows.segments,
        connections: flows.connections,
        resets: flows.resets,
        resets_by_initiator: flows.resets_by[0],
        resets_by_acceptor: flows.resets_by[1],
        icmp_errors: flows.errors,
        duplicates: flows.duplicates,
        format: flows.format.to_owned(),
        broken: flows.broken.clone(),
        ends: flows.ends.as_ref().map(|ends| BothEnds {
            joined: ends.joined,
            translated: ends.translated,
            only_first: ends.only[0],
            only_second: ends.only[1],
            clock_offset_s: ends.offset_ns.map(|offset| rounded(offset as f64 / 1e9)),
            sent_and_received: ends.arrived,
            received_never_sent: ends.never_sent,
            sent_never_received: ends.never_arrived,
            changed: ends.changed,
            second_packets: ends.second[0],
            second_connections: ends.second[1],
            second_resets: ends.second[2],
        }),
        flows: told.iter().take(MOST).map(|told| flow(flows, told)).collect(),
        flows_left_out: told.len().saturating_sub(MOST) as u64 + flows.told_dropped,
        let_go: flows.let_go,
        forgotten: flows.forgotten,
    }
}

pub fn other_end(across: &Across) -> OtherEnd {
    OtherEnd {
        sent_and_received: across.arrived,
        received_never_sent: across.never_sent,
        sent_never_received: across.never_arrived,
        not_captured: across.unknown,
        translated: across.translated,
        clock_offset_s: across.offset_ns.map(|offset| rounded(offset as f64 / 1e9)),
        lossy: across.lossy,
    }
}

fn flow(flows: &Flows, told: &Told) -> CapturedFlow {
    let Told { flow, readings } = told;
    let first = flow.resets.iter().find(|rst| !rst.is_forged()).or(flow.resets.first());
    CapturedFlow {
        stream: flow.number,
        initiator: end(flow, Side::Initiator),
        acceptor: end(flow, Side::Acceptor),
        captured_at: flows.here(flow).map(|side| side.name().to_owned()),
        started_at: rfc3339_millis(flow.started),
        duration_s: rounded(flow.last.saturating_sub(flow.started).as_secs_f64()),
        reset_by: first.map(|rst| rst.side.name().to_owned()),
        phase: flow.resets.first().map(|rst| rst.phase.name().to_owned()),
        idle_s: flow.resets.first().map(|rst| rounded(rst.idle.as_secs_f64())),
        readings: readings
            .iter()
            .map(|reading| CapturedReading {
                story: reading.story.name().to_owned(),
                text: reading.story.words().to_owned(),
                cause: reading.story.cause().map(str::to_owned),
                harmless: reading.harmless,
                others: reading.others.iter().map(|id| (*id).to_owned()).collect(),
                because: reading.because.clone(),
                open: reading.open.map(str::to_owned),
            })
            .collect(),
        rst: flow
            .resets
            .iter()
            .map(|rst| CapturedRst {
                by: rst.side.name().to_owned(),
                phase: rst.phase.name().to_owned(),
                forged: rst.is_forged(),
                window: rst.window,
                ttl: rst.ttl,
                ip_id: rst.ip_id,
                after_s: rounded(rst.idle.as_secs_f64()),
                unacknowledged: rst.unacknowledged,
            })
            .collect(),
    }
}

fn end(flow: &Flow, side: Side) -> CapturedEnd {
    let (address, end) = (flow.address(side), flow.end(side));
    CapturedEnd {
        address: plain(address.ip()),
        port: address.port(),
        packets: end.packets,
        bytes: end.bytes,
        resets: end.resets,
        retransmissions: end.retransmissions,
        zero_windows: end.zero_windows,
    }
}

/// `None` for a host and for a recording of one, which may hold everything.
pub fn coverage(diagnosis: &Diagnosis) -> Option<Coverage> {
    let kind = match diagnosis.input {
        Input::Live | Input::Recording => return None,
        Input::Store => "store",
        Input::Capture => "capture",
        Input::Text => "text",
    };
    let read = diagnosis.sources.iter().filter(|source| source.failure.is_none() || source.partial);
    Some(Coverage { kind: kind.to_owned(), sources: read.map(|source| source.name.to_owned()).collect() })
}
