//! A trace for people: one line per reset, and a summary at the end. For programs: [`super::json`].

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::json::rfc3339_millis;
use super::layout::Page;
use crate::evidence::stated::stated_words;
use crate::knowledge::idle_timeouts::devices_near;
use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::trace::{Basis, End, PortSide, Process, Reset, Summary};
use crate::value::escape::visible;
use crate::value::words::{counted, seconds, thousands};

/// A terminal narrower than this shows each reset on two lines.
const ONE_LINE: u16 = 100;
/// Columns grow with what they have to hold, up to these widths, and never shrink: nothing jumps back and forth.
const MAX_ENDS: usize = 47;
const MAX_WORDS: usize = 32;
const MAX_PROCESS: usize = 23;

/// Lays out the lines of one trace.
#[derive(Debug)]
pub struct Lines {
    /// Columns of the terminal; `None` for a pipe or file, where a reset is always one line.
    width: Option<u16>,
    /// Of the times; none for UTC.
    zone: Option<TimeZone>,
    ends: usize,
    words: usize,
    process: usize,
}

impl Lines {
    pub fn new(width: Option<u16>) -> Self {
        Self { width, zone: None, ends: 33, words: 26, process: 12 }
    }

    /// With the times of this zone.
    #[must_use]
    pub fn of_zone(self, zone: &TimeZone) -> Self {
        Self { zone: (*zone != TimeZone::UTC).then(|| zone.clone()), ..self }
    }

    /// Adds the line of one reset.
    pub fn reset(&mut self, out: &mut String, reset: &Reset) {
        let (direction, arrow) = match reset.joined.direction() {
            Direction::Sent => ("sent    ", '>'),
            Direction::Received => ("received", '<'),
        };
        let peer = reset.joined.peer().map_or_else(|| "peer not known".to_owned(), |peer| peer.to_string());
        let local = reset.joined.local().map_or_else(String::new, |local| local.to_string());
        let ends = format!("{local} {arrow} {peer}");
        let words = reset.words();
        let process = reset.process.as_ref().map_or_else(|| "-".to_owned(), process);
        let details = details(reset);
        let start = out.len();
        let _ = write!(out, "{}  {direction}  ", time(reset, self.zone.as_ref()));
        if self.width.is_some_and(|width| width < ONE_LINE) {
            let _ = write!(out, "{ends}\n{INDENT}{words}");
            let process = Some(process).filter(|process| process != "-");
            for text in process.into_iter().chain(Some(details).filter(|details| !details.is_empty())) {
                let _ = write!(out, ", {text}");
            }
        } else {
            grow(&mut self.ends, &ends, MAX_ENDS);
            grow(&mut self.words, &words, MAX_WORDS);
            grow(&mut self.process, &process, MAX_PROCESS);
            cell(out, &ends, self.ends);
            cell(out, &words, self.words);
            cell(out, &process, self.process);
            out.push_str(&details);
        }
        let end = out.trim_end().len().max(start);
        out.truncate(end);
        out.push('\n');
    }

    /// Says that resets are missing here: `lost` by the kernel, `skipped` because the output or this program was too slow.
    pub fn gap(&self, out: &mut String, lost: u64, skipped: u64) {
        if skipped > 0 {
            let _ = writeln!(out, "... {} more not shown", thousands(skipped));
        }
        if lost > 0 {
            let _ = writeln!(out, "... the records of {} were lost (whole host, any filter)", counted(lost, "reset"));
        }
    }
}

/// Under the direction.
const INDENT: &str = "               ";

fn grow(width: &mut usize, text: &str, most: usize) {
    *width = (*width).max(text.width().min(most));
}

fn cell(out: &mut String, text: &str, width: usize) {
    out.push_str(text);
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width()) + 2));
}

/// `14:02:11.031Z`, `15:02:11.031+01:00`
fn time(reset: &Reset, zone: Option<&TimeZone>) -> String {
    let at = i64::try_from(reset.wall.as_millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    match zone.zip(at) {
        Some((zone, at)) => at.to_zoned_datetime(zone.clone()).strftime("%H:%M:%S%.3f%:z").to_string(),
        None => rfc3339_millis(reset.wall).split_off("2026-11-20T".len()),
    }
}

fn process(process: &Process) -> String {
    match visible(&process.name) {
        name if name.is_empty() => format!("pid {}", process.pid),
        name => format!("{name} {}", process.pid),
    }
}

fn details(reset: &Reset) -> String {
    let mut parts = Vec::new();
    if let Some(location) = &reset.location {
        parts.push(format!("in {}", visible(&location.to_string())));
    }
    if reset.namespace_unclear() {
        parts.push("network namespace not known".to_owned());
    }
    if let Some(state) = reset.joined.state_before() {
        parts.push(state.name().to_owned());
    }
    if let Some(errno) = reset.joined.errno {
        parts.push(errno.to_string());
    }
    // Our own packets leave with the TTL of our own settings.
    if let Some(packet) = reset.joined.packet.as_ref().filter(|p| p.direction == Direction::Received && !p.loopback) {
        parts.push(format!("TTL {}", packet.ttl));
    }
    if let Some(stated) = reset.joined.packet.as_ref().and_then(stated_words) {
        parts.push(format!("says: {}", visible(&stated)));
    }
    if reset.what == Kind::Other
        && let Some(reason) = reset.joined.event.as_ref().and_then(|event| event.reason.as_deref())
    {
        parts.push(visible(reason).into_owned());
    }
    if let Some(end) = &reset.end {
        let said_unread = reset.what == Kind::UnreadData;
        ended(&mut parts, end, reset.joined.direction(), said_unread);
    }
    parts.join(", ")
}

/// What the connection left over, and the idle limit that may have ended it.
fn ended(parts: &mut Vec<String>, end: &End, direction: Direction, said_unread: bool) {
    if end.pause.is_none() {
        parts.push(format!("idle {}", seconds(end.idle)));
    }
    if let (Some(received), Some(sent)) = (end.bytes_in, end.bytes_out) {
        parts.push(format!("{} bytes in, {} out", thousands(received), thousands(sent)));
    }
    let unread = if said_unread { 0 } else { end.unread };
    for (bytes, what) in [(unread, "unread"), (end.unacknowledged, "not acknowledged")] {
        if bytes > 0 {
            parts.push(format!("{} {what}", thousands(bytes.into())));
        }
    }
    let limits = end.pause.filter(|_| direction == Direction::Received).map(|pause| devices_near(pause.as_secs_f64()));
    let limits: Vec<_> = limits.iter().flatten().take(2).map(|limit| limit.name.as_str()).collect();
    if !limits.is_empty() {
        parts.push(format!("idle limit of {}?", limits.join(" or ")));
    }
}

/// Each process once, however it was found each time, the most frequent first; and the number of resets of the others.
fn processes(summary: &Summary, most: usize) -> (Vec<(Process, u64)>, u64) {
    let (all, uncounted) = summary.processes.top(usize::MAX);
    let mut each: Vec<(Process, u64)> = Vec::new();
    for (process, count) in all {
        match each.iter_mut().find(|(known, _)| (known.pid, &known.name) == (process.pid, &process.name)) {
            Some((known, sum)) => {
                *sum += count;
                known.basis = known.basis.min(process.basis);
            }
            None => each.push((process, count)),
        }
    }
    each.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = each.iter().skip(most).map(|(_, count)| count).sum::<u64>();
    each.truncate(most);
    (each, rest + uncounted)
}

/// The summary at the end of a trace.
pub fn summary(summary: &Summary, width: u16) -> String {
    const INDENT: usize = 13;
    const MOST: usize = 8;
    let mut page = Page::new(width, false);
    let total = summary.total();
    page.line(&format!(
        "{} in {}: {} sent, {} received",
        counted(total, "reset"),
        seconds(summary.duration),
        thousands(summary.sent),
        thousands(summary.received)
    ));
    let (reasons, rest) = summary.reasons.top(usize::MAX);
    for (index, ((direction, what), count)) in reasons.iter().enumerate() {
        let label = if index == 0 { "  reasons" } else { "" };
        let way = if *direction == Direction::Sent { "sent" } else { "received" };
        page.field(label, INDENT, &format!("{} {way}: {}", thousands(*count), what.words()));
    }
    debug_assert_eq!(rest, 0);
    let mut list = |label: &str, items: Vec<String>, rest: u64| {
        let rest = (rest > 0).then(|| format!("others {}", thousands(rest)));
        let items: Vec<_> = items.into_iter().chain(rest).collect();
        if !items.is_empty() {
            page.field(label, INDENT, &items.join(", "));
        }
    };
    let (ports, rest) = summary.ports.top(MOST);
    let port = |((side, port), count): &((PortSide, u16), u64)| match side {
        PortSide::Local => format!("{port}:\u{a0}{}", thousands(*count)),
        PortSide::Peer => format!("{port}\u{a0}at\u{a0}peers:\u{a0}{}", thousands(*count)),
    };
    list("  ports", ports.iter().map(port).collect(), rest);
    let (processes, rest) = processes(summary, MOST);
    let named = |(owner, count): &(Process, u64)| {
        let listens = if owner.basis == Basis::Listener { " (listens there)" } else { "" };
        format!("{}{listens}: {}", process(owner), thousands(*count)).replace(' ', "\u{a0}")
    };
    list("  processes", processes.iter().map(named).collect(), rest);
    let (peers, rest) = summary.peers.top(MOST);
    list("  peers", peers.iter().map(|(peer, count)| format!("{peer}:\u{a0}{}", thousands(*count))).collect(), rest);
    let mut note = |label: &str, count: u64, text: &str| {
        if count > 0 {
            page.field(label, INDENT, &format!("{} {text}", thousands(count)));
        }
    };
    let counted = summary.counted.map_or_else(String::new, |counted| {
        format!("of the {} that the kernel counted on the whole host: ", thousands(counted))
    });
    let lost = format!("{counted}their records were lost before they could be read");
    note("  not shown", summary.not_shown, "of them: standard output took them more slowly than they came");
    note("  tallied", summary.not_examined, "more only counted: they came faster than they could be looked at");
    note("  lost", summary.lost, &lost);
    if summary.lost > 0 {
        note(
            "  by packet",
            summary.packet_only,
            "of the first number were seen as packets only: some are among the lost",
        );
    }
    note("  packets", summary.packets_lost, "lost: some resets lack what only the packet tells");
    note(
        "  packets",
        summary.packets_left,
        "not looked at in the storm: resets that only a packet tells of are missing",
    );
    note("  passing", summary.forwarded, "RST packets that were forwarded, not listed");
    page.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::source::reset_events::{ResetEvent, Task};
    use crate::source::reset_packets::ResetPacket;
    use crate::trace::testing::{event, joined, packet};
    use crate::value::TcpState;

    fn unread() -> Reset {
        let task = Some(Task { pid: 977, name: "api-server".into() });
        let reason = Some("TCP_ABORT_ON_CLOSE".to_owned());
        let sent = event(Direction::Sent, "10.0.0.9:9000", "10.0.3.7:52144");
        let event = ResetEvent { task, reason, old_state: Some(TcpState::Established), ..sent };
        let mut reset = joined(Some(event), None);
        reset.process = Some(Process { pid: 977, name: "api-server".into(), basis: Basis::Event });
        reset
    }

    fn one(reset: &Reset, width: Option<u16>) -> String {
        let mut out = String::new();
        Lines::new(width).reset(&mut out, reset);
        out
    }

    #[test]
    fn a_reset_is_one_line() {
        assert_eq!(
            one(&unread(), None),
            "08:02:11.031Z  sent      10.0.0.9:9000 > 10.0.3.7:52144     closed with unread data     api-server 977  ESTABLISHED\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_two_lines_that_fit() {
        let text = one(&unread(), Some(80));
        assert_eq!(
            text,
            "08:02:11.031Z  sent      10.0.0.9:9000 > 10.0.3.7:52144\n               closed with unread data, api-server 977, ESTABLISHED\n"
        );
        assert!(one(&unread(), Some(120)).lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn a_received_reset_shows_the_ttl_of_its_packet() {
        let received = event(Direction::Received, "10.0.0.9:41232", "10.0.7.1:5432");
        let wire = ResetPacket { ttl: 57, ..packet(Direction::Received, "10.0.0.9:41232", "10.0.7.1:5432") };
        let text = one(&joined(Some(received), Some(wire)), None);
        assert!(text.contains("10.0.0.9:41232 < 10.0.7.1:5432") && text.ends_with("TTL 57\n"), "{text}");
    }

    #[test]
    fn last_words_tell_what_was_lost_and_how_long_it_had_been_idle() {
        let mut reset = unread();
        let end = End {
            idle: Duration::from_millis(120),
            pause: None,
            bytes_in: Some(1_204),
            bytes_out: Some(0),
            unread: 1_204,
            unacknowledged: 0,
            unsent: Some(0),
        };
        reset.end = Some(end);
        let text = one(&reset, None);
        assert!(text.contains("closed with 1,204 unread bytes  api-server 977"), "{text}");
        assert!(text.ends_with("ESTABLISHED, idle 0.1 s, 1,204 bytes in, 0 out\n"), "{text}");
    }

    #[test]
    fn a_reset_at_the_first_use_after_a_known_limit_names_the_device() {
        let received = event(Direction::Received, "10.0.0.9:41232", "10.0.7.1:5432");
        let mut reset = joined(Some(ResetEvent { old_state: Some(TcpState::Established), ..received }), None);
        let end = |pause| End {
            idle: Duration::ZERO,
            pause: Some(Duration::from_secs(pause)),
            bytes_in: Some(80),
            bytes_out: Some(12),
            unread: 0,
            unacknowledged: 7,
            unsent: Some(0),
        };
        reset.end = Some(end(351));
        let text = one(&reset, None);
        assert!(text.contains("reset after 351 s idle") && text.contains("7 not acknowledged"), "{text}");
        assert!(text.contains("AWS Network Load Balancer") && text.ends_with("?\n"), "{text}");
        reset.end = Some(end(20_000));
        assert!(one(&reset, None).contains("reset after 5 h 33 min idle") && !one(&reset, None).contains('?'));
    }

    #[test]
    fn a_reset_of_an_unknown_network_namespace_is_not_told_as_of_this_one() {
        let mut reset = unread();
        reset.joined.event.as_mut().expect("one").netns = None;
        assert!(one(&reset, None).contains("977  network namespace not known, ESTABLISHED"), "{}", one(&reset, None));
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let mut reset = unread();
        reset.process = Some(Process { pid: 1, name: "a\x1b[2J\nb".into(), basis: Basis::Event });
        let text = one(&reset, None);
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\x1b') && text.contains("a\\x1b[2J\\nb 1"), "{text:?}");
    }

    #[test]
    fn a_process_stands_once_in_the_summary() {
        let mut all = Summary::default();
        for basis in [Basis::Event, Basis::Listener, Basis::Event] {
            let mut reset = unread();
            reset.process = Some(Process { pid: 977, name: "api-server".into(), basis });
            all.processes.add(reset.process.expect("one"));
        }
        assert!(summary(&all, 80).contains("processes  api-server 977: 3\n"), "{}", summary(&all, 80));
    }

    #[test]
    fn the_summary_says_what_is_missing() {
        let mut all = Summary { not_shown: 12_345, lost: 3, counted: Some(20_000), ..Summary::default() };
        let text = summary(&all, 80);
        assert!(text.starts_with("0 resets in 0 s"), "{text}");
        assert!(text.contains("12,345 of them") && text.contains("3 of the 20,000 that the kernel counted"), "{text}");
        all.lost = 0;
        assert!(!summary(&all, 80).contains("lost"));
    }
}
