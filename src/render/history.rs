//! What happened, for people: episodes, services over the time, resets, and what was not recorded.

use std::time::Duration;

use super::layout::{Page, Paint};
use crate::cause::Severity;
use crate::history::{Direction, Ending, Episode, Past, Row, Span, total};
use crate::value::words::{counted, percent, rate, seconds, thousands};

/// Services and gaps that are shown one by one.
const MOST: usize = 20;
/// Without --all.
const MOST_EPISODES: usize = 40;

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

/// The episodes that are to be shown, the latest last.
pub fn shown(past: &Past, all: bool) -> Vec<&Episode> {
    let shown: Vec<&Episode> = past.episodes.iter().filter(|episode| all || episode.is_fault()).collect();
    let skipped = if all { 0 } else { shown.len().saturating_sub(MOST_EPISODES) };
    shown.into_iter().skip(skipped).collect()
}

/// One sentence: how bad it was.
pub fn sentence(past: &Past) -> String {
    if let Some(process) = past.unknown_process() {
        return format!(
            "No process called {process:?} is known there: what was recorded of this time names those that served connections or had \
             to do with a fault."
        );
    }
    let faults: Vec<&Episode> = past.episodes.iter().filter(|episode| episode.is_fault()).collect();
    let ended_so = |ending| faults.iter().filter(|episode| episode.ending == ending).count() as u64;
    let episodes = match (faults.len() as u64, ended_so(Ending::GoesOn), ended_so(Ending::NotSeen)) {
        (0, ..) if past.is_empty() => return "Nothing was recorded of this time.".to_owned(),
        (0, ..) => "No fault was found".to_owned(),
        (1, 0, 0) => "1 episode, over".to_owned(),
        (1, 1, _) => "1 episode, which goes on".to_owned(),
        (1, ..) => "1 episode, whose end was not seen".to_owned(),
        (all, on, unseen) => {
            let on = match on {
                0 if unseen == 0 => ", all over".to_owned(),
                0 => String::new(),
                1 => ", 1 of them goes on".to_owned(),
                on if on == all => ", all of them go on".to_owned(),
                on => format!(", {} of them go on", thousands(on)),
            };
            let unseen =
                if unseen > 0 { format!(", the end of {} was not seen", thousands(unseen)) } else { String::new() };
            format!("{}{on}{unseen}", counted(all, "episode"))
        }
    };
    let failed = total(past.services.iter().flat_map(|row| row.failed.iter().flatten()));
    let failing =
        past.services.iter().filter(|row| row.failed.iter().flatten().any(|failed| *failed > 0)).count() as u64;
    let unknown = match (past.account.unknown, past.account.ticks) {
        (0, _) => String::new(),
        (unknown, all) => format!(" In {} of {} looks too little was seen for a verdict.", unknown, all),
    };
    match failed {
        0 => format!("{episodes}.{unknown}"),
        failed => {
            let (failed, services) = (counted(failed, "connection"), counted(failing, "service"));
            format!("{episodes}; {failed} failed or were lost at {services}.{unknown}")
        }
    }
}

/// How much of the time was recorded: `all of it`, `23 h 58 min of 24 h`.
pub fn coverage(past: &Past) -> String {
    let length = |span: &Span| Duration::from_millis(span.until.saturating_sub(span.from));
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
        1 => format!("1 {}", episode.unit.trim_end_matches('s')),
        events => format!("{} {}", thousands(events), episode.unit),
    };
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

/// `41 of 1,204 connections failed or were lost (3.4 %)`.
pub fn share(row: &Row) -> String {
    let failed = row.failures();
    let service = &row.service;
    match (service.attempts, service.failures) {
        (None, None) => "connections were not counted".to_owned(),
        // What was lost at the listener is in no connection that ended.
        (Some(ended), _) if ended > 0 || failed > 0 => {
            let attempts = ended.saturating_add(service.drops.unwrap_or(0)).max(failed);
            let share = percent(failed.min(attempts) as f64 / attempts as f64);
            match failed {
                0 => format!("none of {} failed", counted(attempts, "connection")),
                failed => format!("{} of {} failed or lost ({share})", thousands(failed), thousands(attempts)),
            }
        }
        _ => format!("{} failed or lost", thousands(failed)),
    }
}

/// `sent 41 (unexplained 0)`; what nobody counted is said so.
pub fn resets(past: &Past) -> String {
    let totals = &past.account.totals;
    let known = |count: Option<u64>| count.map_or("not counted".to_owned(), thousands);
    let unexplained =
        totals.sent_unexplained.map_or(String::new(), |rest| format!(" (unexplained {})", thousands(rest)));
    format!(
        "sent {}{unexplained}, received {}, by the firewall {}, attempts lost without one {}",
        known(totals.sent),
        known(totals.received),
        known(totals.firewall),
        known(totals.dropped)
    )
}

/// The reasons of resets, most frequent first: `sent 41 unread-data`.
pub fn reasons(past: &Past) -> Vec<(Direction, String, u64)> {
    let mut reasons: Vec<_> =
        past.account.resets.iter().map(|line| (line.direction, line.reason.replace('-', " "), line.count)).collect();
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
    let episodes = shown(past, options.all);
    if !episodes.is_empty() {
        page.gap();
        let mut day = None;
        for episode in &episodes {
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
            page.painted_field(
                &format!("{time}  {word}"),
                paint,
                20,
                &format!("{} · {} · {}", episode.title, episode.place.words(), lasted(episode, calendar)),
            );
            page.field("", 20, &impact(episode));
        }
        let left_out =
            past.episodes.iter().filter(|episode| options.all || episode.is_fault()).count() - episodes.len();
        if left_out > 0 {
            page.field("", 20, &format!("and {} before (--all)", counted(left_out as u64, "episode")));
        }
    }
    services(&mut page, past, calendar, options);
    page.gap();
    page.field("Resets", 8, &resets(past));
    let most: Vec<String> = reasons(past)
        .iter()
        .take(if options.all { usize::MAX } else { 6 })
        .map(|(direction, reason, count)| format!("{} {} {reason}", direction.name(), thousands(*count)))
        .collect();
    if !most.is_empty() {
        page.field("", 8, &most.join(" · "));
    }
    if let Some(text) = counted_over(past, calendar) {
        page.field("", 8, &text);
    }
    gaps(&mut page, past, calendar);
    if let Some(episode) = episodes.last() {
        page.gap();
        let at = (calendar.time)(episode.span.from);
        page.field(
            "",
            0,
            &format!(
                "An episode is judged again by: rstdoctor\u{a0}scan\u{a0}--at\u{a0}'{}'{}",
                at.replace(' ', "\u{a0}"),
                calendar.scan_options
            ),
        );
    }
    page.finish()
}

fn services(page: &mut Page, past: &Past, calendar: &Calendar<'_>, options: &Options) {
    if past.services.is_empty() {
        return;
    }
    page.gap();
    let recorded = past.recorded();
    let part =
        Duration::from_millis(past.wanted.until.saturating_sub(past.wanted.since) / recorded.len().max(1) as u64);
    let unknown = if recorded.iter().all(|recorded| *recorded) { "" } else { ", ? not recorded" };
    page.heading(&format!("Failed or lost connections, a column is {}{unknown}", seconds(part)));
    let highest = past.services.iter().flat_map(|row| row.failed.iter().flatten()).copied().max().unwrap_or(0);
    let most = if options.all { usize::MAX } else { MOST };
    for row in past.services.iter().take(most) {
        let line = sparkline(row, &recorded, highest, options.unicode);
        page.field("", 2, &format!("{}: {}", row.service.place.words(), share(row)));
        page.line(&format!("  {line}"));
    }
    let ends = format!("{} to {}", (calendar.time)(past.wanted.since), (calendar.time)(past.wanted.until));
    page.field("", 2, &ends);
    if past.services.len() > most {
        page.field("", 2, &format!("and {} (--all)", counted((past.services.len() - most) as u64, "further service")));
    }
}

fn gaps(page: &mut Page, past: &Past, calendar: &Calendar<'_>) {
    if past.missing.is_empty() {
        return;
    }
    let spans: Vec<String> = past.missing.iter().take(MOST).map(|span| calendar.span(*span)).collect();
    let more = past.missing.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {}", counted(more as u64, "further gap")) } else { String::new() };
    page.field("Not recorded", 14, &format!("{}{more}", spans.join("; ")));
    if past.unknown > 0 {
        page.field("", 14, &format!("{} of a later version are left out", counted(past.unknown, "entry")));
    }
}
