//! What happened, for people: episodes, services over the time, resets, and what was not recorded.

mod sentence;

use std::collections::BTreeMap;
use std::time::Duration;

pub use sentence::sentence;

use super::layout::{Page, Paint};
use crate::cause::Severity;
use crate::evidence::ledger::RECORD_LOST;
use crate::history::{Direction, Ending, Episode, Gap, Line, Past, Row, Span, Why};
use crate::value::words::{amount, counted, percent, rate, seconds, thousands};

/// What causes call SYNs that were lost.
const ATTEMPTS: &str = "connection attempts";
/// Services and gaps that are shown one by one.
const MOST: usize = 20;
/// Without --all.
const MOST_EPISODES: usize = 40;

/// Behind what cannot be judged again.
pub const NO_RAW: &str = "has no raw evidence left; what to do about its cause is told by";

/// How points in time are written.
pub struct Calendar<'a> {
    /// Of milliseconds since the epoch: `2026-11-26 03:12:04`.
    pub time: &'a dyn Fn(u64) -> String,
    /// Name of its zone.
    pub zone: String,
    /// What follows `rstdoctor scan --at TIME` so that it means the same: ` --utc --store DIRECTORY`.
    pub scan_options: String,
}

impl Calendar<'_> {
    /// Without the date where it is that of `other`.
    fn short(&self, at: u64, other: u64) -> String {
        let (text, other) = ((self.time)(at), (self.time)(other));
        match text.split_once(' ') {
            Some((date, time)) if other.starts_with(date) => time.to_owned(),
            _ => text,
        }
    }

    /// `2026-11-26 03:12:04 to 03:13:10`.
    pub fn span(&self, span: Span) -> String {
        format!("{} to {}", (self.time)(span.from), self.short(span.until, span.from))
    }
}

/// How the table looks.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub width: u16,
    pub colour: bool,
    pub unicode: bool,
    /// Also what is no fault.
    pub all: bool,
}

/// An episode as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub episode: &'a Episode,
    /// It is shown behind the one that it follows from.
    pub follows: bool,
}

/// The episodes that are to be shown, the latest last, and what follows from one behind it.
pub fn shown(past: &Past, all: bool) -> Vec<Shown<'_>> {
    let kept = |index: &usize| past.episodes.get(*index).is_some_and(|episode| all || episode.is_fault());
    let indices: Vec<usize> = (0..past.episodes.len()).filter(kept).collect();
    let story = |index: usize| Some(past.story(index)).filter(|root| *root != index && indices.contains(root));
    let mut shown: Vec<(usize, usize)> =
        indices.iter().map(|index| (story(*index).unwrap_or(*index), *index)).collect();
    // Its own root may come later than what follows from it.
    shown.sort_by_key(|(root, index)| (*root, root != index, *index));
    let skipped = if all { 0 } else { shown.len().saturating_sub(MOST_EPISODES) };
    let of = |(root, index): (usize, usize)| Some(Shown { episode: past.episodes.get(index)?, follows: root != index });
    shown.into_iter().skip(skipped).filter_map(of).collect()
}

/// The one that a person wants to look into first: a fault before what is none, the worst, what follows from nothing else, the
/// longest.
pub fn worst<'a>(shown: &[Shown<'a>]) -> Option<&'a Episode> {
    let key = |shown: &&Shown<'_>| {
        let Shown { episode, follows } = **shown;
        let length = episode.span.until.saturating_sub(episode.span.from);
        (!episode.is_fault(), episode.severity, follows, std::cmp::Reverse(length))
    };
    shown.iter().min_by_key(key).map(|shown| shown.episode)
}

/// `follows from accept-loop-stalled at port 8080`; empty where it follows from nothing.
pub fn because(episode: &Episode) -> String {
    let root = episode.because_of.as_ref();
    root.map_or_else(String::new, |root| format!("follows from {} at {}", root.id, root.place.words()))
}

/// How much of the time was recorded: `all of it`, `23 h 58 min of 24 h`.
pub fn coverage(past: &Past) -> String {
    let length = |gap: &Gap| Duration::from_millis(gap.span.until.saturating_sub(gap.span.from));
    let whole = Duration::from_millis(past.wanted.until.saturating_sub(past.wanted.since));
    let missing: Duration = past.missing.iter().map(length).sum();
    match missing {
        Duration::ZERO => format!("recorded all of {}", seconds(whole)),
        missing => format!("recorded {} of {}", seconds(whole.saturating_sub(missing)), seconds(whole)),
    }
}

/// Which time services and resets are counted over, where it is not what was asked for.
pub fn counted_over(past: &Past, calendar: &Calendar<'_>) -> Option<String> {
    let span = calendar.span(past.counted?);
    Some(format!(
        "services and resets are those of {span}: what went well is stored by the minute, the rest by the tick"
    ))
}

/// How long, and how it ended: `1.2 min`, `4 min, goes on`.
pub fn lasted(episode: &Episode, calendar: &Calendar<'_>) -> String {
    let length = seconds(Duration::from_millis(episode.span.until.saturating_sub(episode.span.from)));
    match (episode.ending, episode.from_start) {
        (Ending::Ended, false) => length,
        (Ending::Ended, true) => format!("{length} or more"),
        (Ending::GoesOn, _) if episode.is_quiet => {
            let last = calendar.short(episode.span.until, episode.span.from);
            format!("{length}, quiet since {last}, too shortly to be over")
        }
        (Ending::GoesOn, _) => format!("{length}, goes on"),
        (Ending::NotSeen, _) => {
            let last = calendar.short(episode.span.until, episode.span.from);
            format!("{length} or more, seen until {last}, end not seen")
        }
    }
}

/// `312 connections, up to 104.0 per s`, and the share that failed.
pub fn impact(episode: &Episode) -> String {
    let counted = match episode.events {
        // Not every harm is counted so: a program that was killed resets nobody who had nothing under way.
        0 => format!("no {}: {}", episode.unit, episode.summary),
        events => amount(events, &episode.unit),
    };
    // The kernel counts each SYN that it drops, and a client sends several for one connection.
    let counted = if episode.unit == ATTEMPTS && episode.events > 1 { counted + ", retries included" } else { counted };
    let peak =
        if episode.peak_per_s >= 0.05 { format!(", up to {} per s", rate(episode.peak_per_s)) } else { String::new() };
    let share = match (episode.failures, episode.attempts) {
        (Some(failures), Some(attempts)) if attempts > 0 && failures <= attempts => {
            format!("; {} failed at worst", percent(failures as f64 / attempts as f64))
        }
        _ => String::new(),
    };
    format!("{counted}{peak}{share}")
}

pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    }
}

/// `41 of 1,204 connections failed (3.4 %); up to 9 attempts lost, retries included`.
pub fn share(past: &Past, row: &Row) -> String {
    let service = &row.service;
    let failed = service.failures.unwrap_or(0);
    let failed = match (service.attempts, failed) {
        (None, 0) => String::new(),
        (Some(0), 0) => String::new(),
        // Without tracepoints a reset is counted, and nothing tells of which service it was.
        (Some(all), 0) => match unexplained(past) {
            0 => format!("none of {} failed", counted(all, "connection")),
            resets => format!(
                "none of {} is known to have failed, but what {} of this host were is not known",
                counted(all, "connection"),
                counted(resets, "reset")
            ),
        },
        (Some(all), failed) if failed <= all => {
            let share = percent(failed as f64 / all as f64);
            format!("{} of {} failed ({share})", thousands(failed), counted(all, "connection"))
        }
        (_, failed) => format!("{} failed", counted(failed, "connection")),
    };
    let lost = match service.drops {
        None | Some(0) => String::new(),
        Some(1) => "1 attempt lost".to_owned(),
        // SYNs that are sent again are counted again (SK_MEMINFO_DROPS).
        Some(lost) => format!("up to {} attempts lost, retries included", thousands(lost)),
    };
    match (failed.is_empty(), lost.is_empty()) {
        (true, true) if service.attempts.is_none() => "connections were not counted".to_owned(),
        (true, true) => "no connection ended".to_owned(),
        (true, false) => lost,
        (false, true) => failed,
        (false, false) => format!("{failed}; {lost}"),
    }
}

fn records_lost(past: &Past, direction: Direction) -> u64 {
    let lines = past.account.resets.iter().filter(|line| line.direction == direction);
    lines.filter(|line| line.reason == RECORD_LOST).map(|line| line.count).sum()
}

/// RSTs that this host sent and of which it is not known what they were.
fn unexplained(past: &Past) -> u64 {
    past.account.totals.sent_unexplained.unwrap_or(0).saturating_add(records_lost(past, Direction::Sent))
}

/// `sent 41 (unexplained 0)`; what nobody counted is said so.
pub fn resets(past: &Past) -> String {
    if past.is_open() {
        return "not counted before the minute is over".to_owned();
    }
    let totals = &past.account.totals;
    let whose = if past.wanted.is_narrow() { "of all ports and processes: " } else { "" };
    let known = |count: Option<u64>| count.map_or("not counted".to_owned(), thousands);
    let lost = |direction| records_lost(past, direction);
    let unexplained = |rest: Option<u64>, lost: u64| match (rest, lost) {
        (None, 0) => String::new(),
        (rest, 0) => format!(" (unexplained {})", thousands(rest.unwrap_or(0))),
        (rest, lost) => {
            let all = rest.unwrap_or(0).saturating_add(lost);
            format!(" (unexplained {}, of {} of them the record was lost)", thousands(all), thousands(lost))
        }
    };
    format!(
        "{whose}sent {}{}, received {}{}, by the firewall {}, attempts lost without one {}",
        known(totals.sent),
        unexplained(totals.sent_unexplained, lost(Direction::Sent)),
        known(totals.received),
        unexplained(None, lost(Direction::Received)),
        known(totals.firewall),
        known(totals.dropped)
    )
}

/// The reasons of resets, most frequent first: `sent 41 unread-data`; those of the cause that was asked for.
pub fn reasons(past: &Past) -> Vec<(Direction, String, u64)> {
    let wanted = |line: &&Line| past.wanted.cause.is_none() || line.cause == past.wanted.cause;
    let lines = past.account.resets.iter().filter(wanted);
    // How each is known is not told here.
    let mut counts: BTreeMap<(Direction, String), u64> = BTreeMap::new();
    for line in lines {
        let count = counts.entry((line.direction, line.words())).or_default();
        *count = count.saturating_add(line.count);
    }
    let mut reasons: Vec<_> = counts.into_iter().map(|((direction, words), count)| (direction, words, count)).collect();
    reasons.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    reasons
}

/// One column for each part of the time: what failed, against the highest of all; what was not recorded is told apart from none.
pub fn sparkline(row: &Row, recorded: &[bool], highest: u64, unicode: bool) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = [':', ':', '-', '-', '=', '+', '*', '#'];
    let levels = if unicode { BLOCKS } else { ASCII };
    let column = |(failed, recorded): (&Option<u64>, &bool)| match failed.unwrap_or(0) {
        0 if !recorded => '?',
        0 => {
            if unicode {
                '·'
            } else {
                '.'
            }
        }
        failed => {
            let level = failed.saturating_mul(8).div_ceil(highest.max(1)).clamp(1, 8);
            levels[usize::try_from(level - 1).unwrap_or(7).min(7)]
        }
    };
    row.failed.iter().zip(recorded).map(column).collect()
}

/// The page for a terminal.
pub fn table(past: &Past, calendar: &Calendar<'_>, options: &Options) -> String {
    let mut page = Page::new(options.width, options.colour);
    let span = Span { from: past.wanted.since, until: past.wanted.until };
    let host = past.hostname.as_ref().map(|host| format!("{host} · ")).unwrap_or_default();
    page.field("", 0, &format!("{host}{} {} · {}", calendar.span(span), calendar.zone, coverage(past)));
    page.gap();
    page.field("", 0, &sentence(past));
    if past.is_empty() {
        problems(&mut page, past);
        return page.finish();
    }
    let shown = shown(past, options.all);
    episodes(&mut page, past, &shown, calendar, options);
    services(&mut page, past, calendar, options);
    page.gap();
    page.field("Resets", 8, &resets(past));
    let most: Vec<String> = reasons(past)
        .iter()
        .take(if options.all { usize::MAX } else { 6 })
        .map(|(direction, reason, count)| format!("{} {} {reason}", direction.word(), thousands(*count)))
        .collect();
    if !most.is_empty() {
        page.field("", 8, &most.join(" · "));
    }
    if let Some(text) = counted_over(past, calendar) {
        page.field("", 8, &text);
    }
    gaps(&mut page, past, calendar);
    problems(&mut page, past);
    if let Some(episode) = worst(&shown) {
        page.gap();
        let at = (calendar.time)(episode.asked_for_at());
        let which = if shown.len() > 1 { "The worst episode" } else { "The episode" };
        let text = match episode.has_raw {
            true => format!(
                "{which} is judged again, with what to type against it, by: rstdoctor\u{a0}scan\u{a0}--at\u{a0}'{}'{}",
                at.replace(' ', "\u{a0}"),
                calendar.scan_options
            ),
            false => format!("{which} {NO_RAW}: rstdoctor\u{a0}explain\u{a0}{}", episode.id),
        };
        page.field("", 0, &text);
    }
    page.finish()
}

fn episodes(page: &mut Page, past: &Past, shown: &[Shown<'_>], calendar: &Calendar<'_>, options: &Options) {
    if shown.is_empty() {
        return;
    }
    page.gap();
    let mut day = None;
    for Shown { episode, follows } in shown {
        let at = (calendar.time)(episode.span.from);
        let (date, time) = at.split_once(' ').unwrap_or(("", &at));
        if day.as_deref() != Some(date) {
            page.heading(date);
            day = Some(date.to_owned());
        }
        let paint = match episode.severity {
            Severity::Critical => Some(Paint::Red),
            Severity::Warning => Some(Paint::Yellow),
            Severity::Info => None,
        };
        let word = if episode.is_fault() { word(episode.severity) } else { "harmless" };
        let (indent, width) = if *follows { ("  ", 22) } else { ("", 20) };
        page.painted_field(
            &format!("{indent}{time}  {word}"),
            paint,
            width,
            &format!("{} · {} · {}", episode.title, episode.place.words(), lasted(episode, calendar)),
        );
        let because = match because(episode) {
            because if because.is_empty() => because,
            _ if *follows => "; follows from it".to_owned(),
            because => format!("; {because}"),
        };
        page.field("", width, &format!("{}{because}", impact(episode)));
    }
    let left_out = past.episodes.iter().filter(|episode| options.all || episode.is_fault()).count() - shown.len();
    if left_out > 0 {
        page.field("", 20, &format!("and {} before (--all)", counted(left_out as u64, "episode")));
    }
}

fn services(page: &mut Page, past: &Past, calendar: &Calendar<'_>, options: &Options) {
    if past.services.is_empty() {
        return;
    }
    page.gap();
    let recorded = past.recorded();
    let unknown = if recorded.iter().all(|recorded| *recorded) { "" } else { ", ? not recorded" };
    let all_causes = if past.wanted.cause.is_some() { " of whatever cause" } else { "" };
    page.heading(&format!(
        "Failed connections and lost attempts{all_causes}, a column is {}{unknown}",
        seconds(past.part())
    ));
    let highest = past.highest();
    let most = if options.all { usize::MAX } else { MOST };
    for row in past.services.iter().take(most) {
        let line = sparkline(row, &recorded, highest, options.unicode);
        page.field("", 2, &format!("{}: {}", row.service.place.words(), share(past, row)));
        page.line(&format!("  {line}"));
    }
    let ends = format!("{} to {}", (calendar.time)(past.wanted.since), (calendar.time)(past.wanted.until));
    page.field("", 2, &ends);
    if past.services.len() > most {
        page.field("", 2, &format!("and {} (--all)", counted((past.services.len() - most) as u64, "further service")));
    }
}

/// What is not known, and why, where that is known.
pub fn gap(gap: &Gap, calendar: &Calendar<'_>) -> String {
    let span = calendar.span(gap.span);
    match &gap.why {
        Some(why) => format!("{span} {}", why.words()),
        None => format!("{span} was not recorded"),
    }
}

/// Of what raw evidence could not be written.
pub fn raw_gap(gap: &Gap, calendar: &Calendar<'_>) -> String {
    let why = gap.why.as_ref().map_or_else(String::new, |why| format!(" {}", why.words()));
    format!("some raw evidence of {}{why}", calendar.span(gap.span))
}

fn gaps(page: &mut Page, past: &Past, calendar: &Calendar<'_>) {
    let is_lost = |gap: &&Gap| matches!(gap.why, Some(Why::NotWritten(_) | Why::Unreadable(_)));
    let (known, unknown): (Vec<&Gap>, Vec<&Gap>) = past.missing.iter().partition(is_lost);
    for lost in known.iter().take(MOST) {
        page.field("Lost", 14, &gap(lost, calendar));
    }
    for lost in past.raw_missing.iter().take(MOST) {
        page.field("Lost", 14, &raw_gap(lost, calendar));
    }
    if !unknown.is_empty() {
        let cut = |gap: &Gap| if gap.why.is_some() { " (the recorder was killed, or the power went)" } else { "" };
        let span = |gap: &&Gap| format!("{}{}", calendar.span(gap.span), cut(gap));
        let spans: Vec<String> = unknown.iter().take(MOST).map(span).collect();
        let more = unknown.len().saturating_sub(MOST);
        let more = if more > 0 { format!(" and {}", counted(more as u64, "further gap")) } else { String::new() };
        page.field("Not recorded", 14, &format!("{}{more}", spans.join("; ")));
    }
    if past.unknown > 0 {
        page.field("Left out", 14, &format!("{} of a later version", counted_of(past.unknown, "entry", "entries")));
    }
    let late = past.changes.iter().filter(|change| change.text.contains(" late")).take(MOST);
    for change in late {
        page.field("Looked late", 14, &format!("{} {}", (calendar.time)(change.at), change.text));
    }
}

fn problems(page: &mut Page, past: &Past) {
    for text in past.problems.iter().take(MOST) {
        page.field("Store", 14, text);
    }
}

fn counted_of(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { many })
}
