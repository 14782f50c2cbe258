//! Text that somebody pasted or kept: counters, sockets, settings, packets, logs. Counters of one time are totals since boot, those
//! of two times a window.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::held::{Answers, HeldHost};
use super::{Given, Held, Kind, Namespace, Opened, Unusable, plan};
use crate::knowledge::log::{self, Digest, Stamp};
use crate::observation::{Covers, Hint, Input, SourceStatus};
use crate::source::sock_diag::encode;
use crate::source::{netstat, snmp, sysctl};
use crate::value::{Failure, FailureKind, Moment};

/// Of a text, whose lines are read one after the other.
const LONGEST: u64 = 1 << 30;
/// Two texts do not tell how long the time between them was, where their files do not either.
const UNKNOWN: Duration = Duration::from_secs(1);

pub const KIND: Kind = Kind { name: "text", begins: is_text, open: held };

/// No text holds a NUL, and few other characters that control.
fn is_text(head: &[u8]) -> bool {
    if log::utf16(head).is_some() {
        return true;
    }
    let control = head.iter().filter(|byte| **byte < 0x20 && !b"\t\n\r\x1b\x0c".contains(byte)).count();
    !head.contains(&0) && control * 20 <= head.len()
}

/// Texts one after the other: counters that stand in two of them tell what happened between.
fn held(texts: Vec<Held>, _: &Given) -> anyhow::Result<Opened> {
    let between = match &texts[..] {
        [first, last] => last.written().zip(first.written()).and_then(|(last, first)| last.duration_since(first).ok()),
        _ => None,
    };
    open(texts.into_iter().map(|text| (text.name, text.input)).collect(), between)
}

/// Texts of one host, each with its name; of several, the line is told by it. `between`: the time between two texts, where it is
/// known.
pub fn open(texts: Vec<(String, Box<dyn Read + Send>)>, between: Option<Duration>) -> anyhow::Result<Opened> {
    let several = texts.len() > 1;
    let first = texts.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let mut reading = log::Reading::default();
    for (name, input) in texts {
        let read = reading.read(several.then_some(&*name), &mut BufReader::new(input.take(LONGEST)));
        read.with_context(|| format!("{name}: cannot be read"))?;
    }
    let digest = reading.finish();
    if digest.paste.counters.foreign() {
        let why = "netstat speaks another language there, and only English is read: LC_ALL=C netstat -s";
        return Err(Unusable::new(&first, why).into());
    }
    if digest.paste.lines() == 0 && digest.found.is_empty() {
        return Err(Unusable::new(&first, nothing(&digest)).into());
    }
    Ok(of_digest(&digest, between, Answers::new(), None))
}

/// What texts tell, and what else was kept of their host. `status`: how the whole of it went, where it is more than text.
pub fn of_digest(digest: &Digest, between: Option<Duration>, kept: Answers, state: Option<SourceStatus>) -> Opened {
    let ranked = log::rank(digest).causes;
    let when = |(first, last): (Stamp, Stamp)| match first == last {
        true => format!("at {first}"),
        false => format!("from {}", first.until(&last)),
    };
    let hints = ranked.into_iter().map(|it| Hint {
        id: it.id,
        among_many: it.is_among_many(),
        stated: it.is_stated(),
        reason: it.reason,
        when: it.when.map(when),
        change: it.text.change.clone(),
    });
    let packets = &digest.paste.packets;
    let flows = (packets.packets > 0).then(|| Arc::new(packets.flows().clone()));
    let window = digest.paste.counters.window();
    let length = match &flows {
        Some(flows) => flows.window().max(Duration::from_millis(1)),
        None if window => between.filter(|time| !time.is_zero()).unwrap_or(UNKNOWN),
        None => Duration::ZERO,
    };
    let state = state.unwrap_or_else(|| status(digest));
    let covers = Covers { input: Input::Text, status: Some(state), flows, hints: hints.collect(), ..Covers::default() };
    let begin = Moment::default();
    let end = Moment { mono: begin.mono + length, wall: begin.wall + length, ..begin };
    let with = |last| {
        let mut all = answers(digest, last);
        all.extend(kept.clone());
        all
    };
    let (before, after) = (with(false), with(true));
    Opened {
        host: Box::new(HeldHost { before, after, begin, end, lacks: "this text", closed: false }),
        plan: plan(length, false, covers),
        namespace: Namespace::default(),
        recorded: None,
    }
}

/// Why nothing of it helps, with the first line that looked like something.
fn nothing(digest: &Digest) -> String {
    if let Some(lacks) = digest.paste.packets.lacks() {
        return format!("holds {lacks}");
    }
    let unknown = digest.paste_unknown.samples.iter().chain(&digest.errors_unknown.samples).min();
    let line = match unknown {
        Some((number, text)) => format!(" ({}: {text:?})", digest.place(*number)),
        None => String::new(),
    };
    format!("holds nothing that is known here: no recording, capture, counters, sockets, packets or known error{line}")
}

/// How much of the text was understood.
fn status(digest: &Digest) -> SourceStatus {
    let failure = not_understood(digest).map(|reason| Failure::new(FailureKind::Broken, reason));
    SourceStatus { name: "text", partial: failure.is_some(), failure, note: None, took: Duration::ZERO }
}

/// The lines that were not understood, with the first of them; `None` without any.
pub fn not_understood(digest: &Digest) -> Option<String> {
    let unknown = digest.paste_unknown.lines + digest.errors_unknown.lines;
    let samples = digest.paste_unknown.samples.iter().chain(&digest.errors_unknown.samples);
    let first: Vec<_> = samples.take(2).map(|(number, text)| format!("{}: {text}", digest.place(*number))).collect();
    (unknown > 0).then(|| format!("{unknown} of {} lines were not understood ({})", digest.lines, first.join("; ")))
}

/// What the text shows, as the kernel would have answered.
fn answers(digest: &Digest, last: bool) -> Answers {
    let paste = &digest.paste;
    let mut answers = Answers::new();
    let mut file = |path: &str, bytes: Option<Vec<u8>>| {
        if let Some(bytes) = bytes {
            answers.insert(format!("file{path}"), bytes);
        }
    };
    file(netstat::FILE.path, paste.counters.file(&["TcpExt", "IpExt", "MPTcpExt"], last));
    file(snmp::FILE.path, paste.counters.file(&["Tcp", "Ip", "Icmp", "Udp"], last));
    file("/proc/net/sockstat", paste.sockets.sockstat());
    file("/proc/net/stat/nf_conntrack", paste.settings.tracking());
    for (name, value) in paste.settings.all() {
        file(&sysctl::path(name), Some(format!("{value}\n").into_bytes()));
    }
    if !paste.sockets.listening.is_empty() {
        let listening = paste.sockets.listening.iter().map(|it| (it.local, it.waiting, it.limit));
        answers.insert("sock_diag/listeners".to_owned(), encode::listeners(listening));
    }
    answers
}
