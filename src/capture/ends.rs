//! Two captures of the same connections, one at each end: what left one end and arrived at the other, and what did not. Joined by
//! addresses or, through address translation, by the numbers that both sides began with (RFC 9293, 3.4.1), which it leaves alone.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::flow::{Flow, Side};
use super::flows::{Ends, Flows, Told};
use super::reset::Rst;
use super::story::{Reading, Story, Sure};
use crate::value::words::{counted, short};

/// An end whose capture was not running, or just began, saw nothing.
const MARGIN: Duration = Duration::from_millis(50);

/// The numbers that both sides began with.
type Numbers = (u32, u32);
type Addresses = (SocketAddr, SocketAddr);

/// Tells of the connections of `first` what `second` shows of them; what only the second has to tell is added.
pub fn join(first: &mut Flows, mut second: Flows) {
    let mut ends = Ends { second: [second.packets, second.connections, second.resets], ..Ends::default() };
    let mut by_numbers: HashMap<Numbers, usize> = HashMap::new();
    let mut by_addresses: HashMap<Addresses, usize> = HashMap::new();
    for (index, told) in second.told.iter().enumerate() {
        if let Some(numbers) = numbers(&told.flow) {
            by_numbers.insert(numbers, index);
        }
        by_addresses.insert((told.flow.initiator, told.flow.acceptor), index);
    }
    let same = |flow: &Flow| {
        let by_number = numbers(flow).and_then(|numbers| by_numbers.get(&numbers));
        by_number.or_else(|| by_addresses.get(&(flow.initiator, flow.acceptor))).copied()
    };
    let pairs: Vec<Option<usize>> = first.told.iter().map(|told| same(&told.flow)).collect();
    let offset = offset(pairs.iter().zip(&first.told).filter_map(|(pair, told)| {
        let other = second.told.get((*pair)?)?;
        clock(&told.flow, &other.flow)
    }));
    ends.offset_ns = offset;
    let sent = [sent(first), sent(&second)];
    let mut taken = vec![false; second.told.len()];
    let spans = [first.span, second.span];
    let mut lossy = [false; 2];
    for (told, pair) in first.told.iter().zip(&pairs) {
        let other = pair.and_then(|index| second.told.get(index));
        if let Some(other) = other {
            let [a, b] = lacks(&told.flow, &other.flow);
            lossy = [lossy[0] || a, lossy[1] || b];
        }
    }
    for (told, pair) in first.told.iter_mut().zip(&pairs) {
        match pair.and_then(|index| Some((index, second.told.get(index)?))) {
            Some((index, other)) => {
                if let Some(taken) = taken.get_mut(index) {
                    *taken = true;
                }
                ends.joined += 1;
                let translated =
                    (told.flow.initiator, told.flow.acceptor) != (other.flow.initiator, other.flow.acceptor);
                ends.translated += u64::from(translated);
                let pair = Pair { translated, offset: offset.unwrap_or(0), spans, lossy, sent: &sent };
                pair_told(told, &other.flow, &pair, &mut ends);
            }
            None => {
                ends.only[0] += 1;
                // It may be among those that are not kept.
                if second.told_dropped + second.let_go == 0 {
                    alone(told, spans[1], offset.unwrap_or(0));
                }
            }
        }
    }
    for (told, taken) in second.told.drain(..).zip(taken) {
        if !taken {
            ends.only[1] += 1;
            if !told.readings.is_empty() && first.told.len() < super::kept::WHOLE_OF_TWO {
                first.told.push(told);
            }
        }
    }
    first.ends = Some(ends);
}

fn numbers(flow: &Flow) -> Option<Numbers> {
    // Without the handshake the first numbers are those of any segment.
    flow.accepted?;
    Some((flow.end(Side::Initiator).base?, flow.end(Side::Acceptor).base?))
}

/// The second clock less the first, by the two packets of the handshake that cross in opposite directions.
fn clock(first: &Flow, second: &Flow) -> Option<i64> {
    let difference = |a: Duration, b: Duration| {
        let (a, b) = (i128::try_from(a.as_nanos()).ok()?, i128::try_from(b.as_nanos()).ok()?);
        Some(b - a)
    };
    let there = difference(first.opened?, second.opened?)?;
    let back = difference(first.accepted?, second.accepted?)?;
    i64::try_from((there + back) / 2).ok()
}

fn offset(all: impl Iterator<Item = i64>) -> Option<i64> {
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// A time of the first clock on the second.
fn shifted(at: Duration, offset: i64) -> Duration {
    let by = Duration::from_nanos(offset.unsigned_abs());
    if offset < 0 { at.saturating_sub(by) } else { at.saturating_add(by) }
}

fn covers(span: Option<(Duration, Duration)>, at: Duration) -> bool {
    span.is_some_and(|(from, to)| from + MARGIN <= at && at <= to + MARGIN)
}

/// Whether the first of the two was captured at the initiator: it waits for the SYN-ACK, the acceptor's end for what follows it.
fn first_is_initiators(first: &Flow, second: &Flow) -> Option<bool> {
    let waits = |flow: &Flow| flow.accepted?.checked_sub(flow.opened?);
    let (a, b) = (waits(first)?, waits(second)?);
    (a != b).then_some(a > b)
}

/// The same RST at the other end: its number is what translation leaves alone.
fn same(rst: &Rst, other: &Rst) -> bool {
    other.side == rst.side && other.seq == rst.seq && other.has_ack == rst.has_ack
}

/// RSTs of a capture, by the ends that they carry and their number.
type Sent = HashSet<(SocketAddr, SocketAddr, u32)>;

fn sent(flows: &Flows) -> Sent {
    let all = flows.told.iter().flat_map(|told| told.flow.resets.iter().map(|rst| carried(&told.flow, rst)));
    all.collect()
}

fn carried(flow: &Flow, rst: &Rst) -> (SocketAddr, SocketAddr, u32) {
    (flow.address(rst.side), flow.address(rst.side.other()), rst.seq)
}

/// What is known beside the two halves of a connection.
struct Pair<'a> {
    /// It has other addresses at the other end.
    translated: bool,
    offset: i64,
    spans: [Option<(Duration, Duration)>; 2],
    lossy: [bool; 2],
    sent: &'a [Sent; 2],
}

fn pair_told(told: &mut Told, other: &Flow, pair: &Pair<'_>, ends: &mut Ends) {
    let Pair { translated, offset, spans, lossy, sent } = *pair;
    let Some(at_initiator) = first_is_initiators(&told.flow, other) else { return };
    let here = if at_initiator { Side::Initiator } else { Side::Acceptor };
    let (mut genuine, mut never_sent, mut lost) = (0u64, Vec::new(), Vec::new());
    // Sent by its own end all the same, with the addresses of this one: what it answers had not been translated back.
    let mut untranslated = Vec::new();
    for rst in &told.flow.resets {
        let there = other.resets.iter().find(|candidate| same(rst, candidate));
        match there {
            Some(there) => {
                genuine += 1;
                ends.arrived += 1;
                ends.changed += u64::from(rst.window != there.window);
            }
            None if translated && rst.side != here && sent[1].contains(&carried(&told.flow, rst)) => {
                untranslated.push(rst.clone());
            }
            None if !covers(spans[1], shifted(rst.at, offset)) => {}
            // It carries the address of the other end, whose capture does not have it.
            None if rst.side != here => never_sent.push(rst.clone()),
            None => lost.push(rst.clone()),
        }
    }
    for rst in other.resets.iter().filter(|rst| !told.flow.resets.iter().any(|own| same(own, rst))) {
        match rst.side == here {
            true if translated && sent[0].contains(&carried(other, rst)) => untranslated.push(rst.clone()),
            _ if !covers(spans[0], shifted(rst.at, offset.saturating_neg())) => {}
            true => never_sent.push(rst.clone()),
            false => lost.push(rst.clone()),
        }
    }
    ends.arrived += untranslated.len() as u64;
    ends.never_sent += never_sent.len() as u64;
    ends.never_arrived += lost.len() as u64;
    let names = if translated {
        format!(" (there {} > {}: translated on the way)", other.initiator, other.acceptor)
    } else {
        String::new()
    };
    if let Some(rst) = untranslated.first() {
        let text = format!(
            "the {} sent {} with the addresses that only the other end knows: a segment had reached it that was not translated back{names}",
            rst.side.name(),
            counted(untranslated.len() as u64, "RST"),
        );
        let reading = Reading::new(Story::Untranslated, Sure::Likely).by(rst.side).because(text);
        told.readings.retain(|reading| reading.by != Some(rst.side) && reading.story != Story::Forged);
        told.readings.insert(0, Reading { phase: Some(rst.phase), ..reading });
    }
    if let Some(rst) = never_sent.first() {
        let text = format!(
            "{} in the name of the {} arrived at the other end, and its own end never sent {}{names}",
            counted(never_sent.len() as u64, "RST"),
            rst.side.name(),
            if never_sent.len() == 1 { "it" } else { "them" },
        );
        // Only in the name of a translated address does the host that translates speak for itself.
        let its_own = rst.answer && told.flow.address(rst.side) != other.address(rst.side);
        let reading = match its_own {
            true => Reading::new(Story::Untranslated, Sure::Likely)
                .others(&["middlebox-reset"])
                .because(text)
                .because("it is in the name of the translated address, and answers a segment as a kernel does that has no such connection: the host that translates took that segment for its own")
                .open("why it was not translated back: conntrack took it for invalid, or had forgotten the connection"),
            false => Reading::new(Story::Between, Sure::Surely).because(text),
        };
        // What is in the name of this end is missing in this end's capture.
        let mut reading = unless_lossy(reading, lossy[usize::from(rst.side != here)]);
        reading.phase = Some(rst.phase);
        // What was read from one end alone gives way to the proof.
        told.readings.retain(|reading| reading.by != Some(rst.side) && reading.story != Story::Forged);
        told.readings.insert(0, reading);
    }
    if let Some(rst) = lost.first() {
        let text = format!(
            "the {} sent {} that never arrived at the other end{names}",
            rst.side.name(),
            counted(lost.len() as u64, "RST")
        );
        let reading = Reading::new(Story::LostReset, Sure::Surely).by(rst.side).because(text);
        let mut reading = unless_lossy(reading, lossy[usize::from(rst.side == here)]);
        reading.phase = Some(rst.phase);
        // That the other side is not heard any more is its effect.
        told.readings.retain(|reading| reading.story != Story::Lost);
        told.readings.insert(0, reading);
    }
    if genuine > 0
        && let Some(reading) =
            told.readings.iter_mut().find(|reading| reading.by.is_some() && reading.story != Story::LostReset)
    {
        reading
            .because
            .push(format!("{} left its own end and arrived here: it is its own{names}", counted(genuine, "RST")));
    }
}

/// Whether each of two captures of a connection lost packets of it: what is not in it may have been there all the same.
fn lacks(first: &Flow, second: &Flow) -> [bool; 2] {
    let mut lacks = [first, second].map(Flow::lacks_packets);
    if let Some(at_initiator) = first_is_initiators(first, second) {
        let sides = if at_initiator { [Side::Initiator, Side::Acceptor] } else { [Side::Acceptor, Side::Initiator] };
        // What arrived at one end had left the other.
        let left_less = |own: &Flow, arrived: &Flow, side| {
            let (own, arrived) = (own.end(side), arrived.end(side));
            own.bytes < arrived.bytes || own.fin.is_none() && arrived.fin.is_some()
        };
        lacks = [lacks[0] || left_less(first, second, sides[0]), lacks[1] || left_less(second, first, sides[1])];
    }
    lacks
}

fn unless_lossy(reading: Reading, lossy: bool) -> Reading {
    if !lossy {
        return reading;
    }
    let reading = reading.because("the capture in which it is missing lacks other packets as well".to_owned());
    Reading { sure: Sure::Perhaps, open: Some("whether that capture lost it, too"), ..reading }
}

/// A connect that only one end has.
fn alone(told: &mut Told, span: Option<(Duration, Duration)>, offset: i64) {
    let covered = covers(span, shifted(told.flow.started, offset));
    for reading in &mut told.readings {
        if reading.story == Story::Unanswered && covered {
            reading.because.push("the other end never saw the SYN: it was dropped on the way".to_owned());
            (reading.sure, reading.open) = (Sure::Surely, None);
        }
    }
}

impl Ends {
    /// In a sentence for people.
    pub fn words(&self) -> String {
        let clocks = match self.offset_ns {
            Some(offset) => {
                let by = short(Duration::from_nanos(offset.unsigned_abs()));
                format!(", the second clock {} by {by}", if offset < 0 { "behind" } else { "ahead" })
            }
            None => String::new(),
        };
        let translated = match self.translated {
            0 => String::new(),
            some => format!(", {some} of them through address translation"),
        };
        format!(
            "{} at both ends{translated}{clocks}. RSTs: {} sent and received, {} received and never sent, {} sent and never received.",
            counted(self.joined, "connection"),
            self.arrived,
            self.never_sent,
            self.never_arrived
        )
    }
}
