//! A live view as lines: one for each thing that changes, and a summary at the end.

use std::fmt::Write as _;

use super::escape::visible;
use super::json::rfc3339_seconds;
use super::layout::wrap;
use crate::cause::{Severity, State};
use crate::diagnosis::Status;
use crate::source::Moment;
use crate::watch::{Change, Episode, Event, Phase, Tick, Watch, What};
use crate::words::{counted, percent, seconds, thousands};

/// Where the text of a line begins: behind the time and one word.
const INDENT: usize = 21;
const MIN_WIDTH: usize = 60;

/// Writes the lines of one live view.
#[derive(Debug)]
pub struct Lines {
    /// Columns; `None` where lines are not broken, so that each thing stays one line in a log.
    width: Option<usize>,
    /// Of the latest line, as the date of RFC 3339.
    day: String,
}

impl Lines {
    pub fn new(width: Option<u16>) -> Self {
        Self { width: width.map(|width| usize::from(width).max(MIN_WIDTH)), day: String::new() }
    }

    /// What changed with this tick; empty if nothing did. The first tick says how things are.
    pub fn tick(&mut self, tick: &Tick) -> String {
        let mut out = String::new();
        if tick.number == 1 {
            let host = tick.diagnosis.host.hostname.as_deref().unwrap_or("this host");
            let window = seconds(tick.diagnosis.window);
            let text = format!("Watching {host}, a tick every {window}. A line follows for each change.");
            let _ = writeln!(out, "{}", visible(&text));
            if tick.events.iter().all(|event| !is_told(event)) {
                self.line(&mut out, tick.at, status(tick.status), &tick.diagnosis.summary);
            }
        }
        for event in tick.events.iter().filter(|event| is_told(event)) {
            self.line(&mut out, event.at, event.what.name(), &told(event));
        }
        for Change { at, text, .. } in &tick.changes {
            self.line(&mut out, *at, "note", text);
        }
        out
    }

    /// What was seen from the start to the end.
    pub fn summary(&self, watch: &Watch) -> String {
        let Some((started, latest)) = watch.started().zip(watch.latest()) else {
            return "Nothing was watched: it ended before the first tick.\n".to_owned();
        };
        let time = seconds(latest.mono.saturating_sub(started.mono));
        let mut out = format!("Watched {time}, {}", counted(watch.ticks(), "tick"));
        let mut told: Vec<&Episode> =
            watch.episodes().iter().filter(|e| e.latest.finding.state != State::Benign).collect();
        if told.is_empty() {
            out.push_str(": no connection was refused, dropped or reset for a bad reason.\n");
            return out;
        }
        out.push_str(":\n");
        told.sort_by_key(|episode| (episode.severity, episode.since.mono));
        for episode in told {
            let label = format!("  {}", word(episode.severity));
            self.wrapped(&mut out, &label, 12, &past(episode));
        }
        out
    }

    fn line(&mut self, out: &mut String, at: Moment, word: &str, text: &str) {
        let time = rfc3339_seconds(at.wall);
        let (day, time) = time.split_once('T').unwrap_or(("", &time));
        if self.day != day {
            let _ = writeln!(out, "{day}");
            day.clone_into(&mut self.day);
        }
        self.wrapped(out, &format!("{time}  {word}"), INDENT, text);
    }

    fn wrapped(&self, out: &mut String, label: &str, indent: usize, text: &str) {
        let text = visible(text);
        let lines = match self.width {
            Some(width) => wrap(&text, width - indent),
            None => vec![text.into_owned()],
        };
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let _ = writeln!(out, "{label:indent$}{line}");
        }
    }
}

/// What explains numbers and is no fault makes no line. That something has eased is seen when it ends.
pub fn is_told(event: &Event) -> bool {
    event.state != State::Benign && event.what != What::Eased
}

/// What happened, in one sentence behind the word of [`What`].
pub fn told(event: &Event) -> String {
    let place = event.key.place.to_string();
    let at = if place.is_empty() { String::new() } else { format!(" ({place})") };
    match event.what {
        What::Ended => {
            format!("{}{at}, after {}: {} in all", event.title, seconds(event.lasted), amount(event.events, event.unit))
        }
        What::Again if event.times > 2 => {
            format!("{}  {}. For the {} time.", word(event.severity), event.summary, ordinal(event.times))
        }
        What::Worsened => {
            format!("{}  {}, {:.1} per s.", word(event.severity), event.summary, event.per_s)
        }
        _ => format!("{}  {}. [{}]", word(event.severity), event.summary, event.key.id),
    }
}

fn past(episode: &Episode) -> String {
    let place = episode.key.place.to_string();
    let at = if place.is_empty() { String::new() } else { format!(" ({place})") };
    let from = if episode.from_start { "from the start" } else { &clock(episode.since) };
    let until = match episode.phase {
        Phase::Ended => format!("{from} to {}", clock(episode.last)),
        _ => format!("since {from}, still going on").replace("since from", "from"),
    };
    let times = if episode.times > 1 { format!(", {} times", episode.times) } else { String::new() };
    format!(
        "{}{at}: {}, at most {:.1} per s, {} sure; {until}{times}",
        episode.latest.title,
        amount(episode.events, episode.latest.finding.impact.unit),
        episode.peak_per_s,
        percent(episode.latest.finding.confidence),
    )
}

/// `1 reset`, `1,204 resets`. The unit is a plural noun.
pub fn amount(events: u64, unit: &str) -> String {
    match (events, unit.strip_suffix('s')) {
        (1, Some(singular)) => format!("1 {singular}"),
        _ => format!("{} {unit}", thousands(events)),
    }
}

/// `14:02:11Z`
pub fn clock(at: Moment) -> String {
    let time = rfc3339_seconds(at.wall);
    time.split_once('T').map_or(time.clone(), |(_, time)| time.to_owned())
}

/// `2nd`
pub fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// The severity as the report words it.
pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "seen",
    }
}

/// The verdict as the report words it.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::Warning => "WARNING",
        Status::Critical => "CRITICAL",
        Status::Unknown => "UNKNOWN",
    }
}
