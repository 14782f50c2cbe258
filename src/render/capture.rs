//! The connections of a capture: what was counted, and what became of each that was reset, refused or not answered.

use super::layout::{Page, shorten};
use crate::capture::{Flows, Side, Told};
use crate::value::escape::visible;
use crate::value::words::{counted, thousands};

/// Connections that the short report tells one by one.
const MOST: usize = 4;
const INDENT: usize = 10;

/// The counts, in a sentence.
pub fn counts(flows: &Flows) -> String {
    let [initiator, acceptor] = flows.resets_by;
    let by = match flows.resets {
        0 => String::new(),
        _ => format!(" ({} by initiators, {} by acceptors)", thousands(initiator), thousands(acceptor)),
    };
    let mut parts = vec![
        counted(flows.packets, "packet"),
        counted(flows.connections, "connection"),
        format!("{}{by}", counted(flows.resets, "RST")),
    ];
    if flows.errors > 0 {
        parts.push(counted(flows.errors, "ICMP error"));
    }
    if flows.duplicates > 0 {
        parts.push(format!("{} captured twice", counted(flows.duplicates, "packet")));
    }
    let unread: u64 = flows.unread.values().sum();
    if unread > 0 {
        let kinds: Vec<_> = flows.unread.keys().map(u32::to_string).collect();
        parts.push(format!("{} of link type {} not read", counted(unread, "packet"), kinds.join(", ")));
    }
    if flows.untimed > 0 {
        parts.push(format!("{} without a usable time", counted(flows.untimed, "packet")));
    }
    parts.join(", ")
}

/// The counts and the first connections; all of them with `whole`.
pub fn write(page: &mut Page, flows: &Flows, whole: bool) {
    page.field("Capture", INDENT, &format!("{}.", counts(flows)));
    if let Some(ends) = &flows.ends {
        page.field("", INDENT, &ends.words());
    }
    if let Some(broken) = &flows.broken {
        page.field("", INDENT, &format!("The file is not whole: {}.", visible(broken)));
    }
    if flows.let_go > 0 {
        let text = "were let go before they ended, more were open than can be followed: what they lack is not held against them.";
        page.field("", INDENT, &format!("{} {text}", counted(flows.let_go, "connection")));
    }
    if flows.forgotten > 0 {
        let text = "is kept: if one had a later packet, that counts as one more.";
        page.field("", INDENT, &format!("Of {} nothing {text}", counted(flows.forgotten, "connection")));
    }
    let told: Vec<&Told> = flows.told.iter().filter(|told| !told.readings.is_empty()).collect();
    let most = if whole { usize::MAX } else { MOST };
    let room = page.prose_width() - INDENT;
    for told in told.iter().take(most) {
        let text = line(flows, told);
        page.field("", INDENT, &if whole { text } else { shorten(&text, room * 2) });
    }
    let left = told.len().saturating_sub(most) as u64 + flows.told_dropped;
    if left > 0 {
        page.field(
            "",
            INDENT,
            &format!("and {} more{}", counted(left, "connection"), if whole { "" } else { " (--all)" }),
        );
    }
}

/// `10.0.0.9:40000 > 10.0.0.1:80  refused, 3 RSTs by the acceptor: nothing listens there`.
fn line(flows: &Flows, told: &Told) -> String {
    let (initiator, acceptor) = (flows.name(told.flow.initiator), flows.name(told.flow.acceptor));
    let here = match flows.here(&told.flow) {
        Some(Side::Initiator) => " (captured at the first)",
        Some(Side::Acceptor) => " (captured at the second)",
        None => "",
    };
    let by: Vec<_> = [Side::Initiator, Side::Acceptor]
        .into_iter()
        .filter(|side| told.flow.end(*side).resets > 0)
        .map(|side| format!("{} by the {}", counted(told.flow.end(side).resets, "RST"), side.name()))
        .collect();
    let phase = told.flow.resets.first().map_or(String::new(), |rst| format!(" {}", rst.phase.words()));
    let by = if by.is_empty() { String::new() } else { format!(", {}", by.join(", ")) };
    let words: Vec<_> = told.readings.iter().map(|reading| reading.story.words()).collect();
    format!("{initiator} > {acceptor}{here}{by}{phase}: {}", words.join("; then "))
}
