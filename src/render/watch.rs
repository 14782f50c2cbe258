//! A live view as lines: one for each thing that changes, and a summary at the end.

use std::fmt::Write as _;

use super::json::rfc3339_seconds;
use super::layout::wrap;
use super::verdict::{status, word};
use crate::diagnosis::Status;
use crate::timeline::{Change, Episode, Event, Key, Phase, Root, Tick, Watch, What};
use crate::value::Moment;
use crate::value::escape::visible;
use crate::value::words::{amount, counted, percent, rate, seconds};

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
    /// Too little was seen in the latest tick.
    unknown: bool,
}

impl Lines {
    pub fn new(width: Option<u16>) -> Self {
        Self { width: width.map(|width| usize::from(width).max(MIN_WIDTH)), day: String::new(), unknown: false }
    }

    /// What changed with this tick; empty if nothing did. The first tick says how things are.
    pub fn tick(&mut self, tick: &Tick) -> String {
        let mut out = String::new();
        if tick.number == 1 {
            let host = tick.diagnosis.host.hostname.as_deref().unwrap_or("this host");
            let interval = seconds(tick.interval);
            let text = format!("Watching {host}, a tick every {interval}; a line follows for each change");
            let _ = writeln!(out, "{}", visible(&text));
            if tick.events.iter().all(|event| !is_told(event)) {
                self.line(&mut out, tick.at, status(tick.status), tick.sentence());
            }
            let unchecked = tick.diagnosis.not_checked.len() as u64;
            if unchecked > 0 {
                let text = format!("{} cannot be checked here: scan lists them", counted(unchecked, "possible cause"));
                self.line(&mut out, tick.at, "note", &text);
            }
        }
        let unknown = tick.status == Status::Unknown;
        if unknown != self.unknown && tick.number > 1 {
            self.line(&mut out, tick.at, status(tick.status), tick.sentence());
        }
        self.unknown = unknown;
        for event in tick.events.iter().filter(|event| is_told(event)) {
            self.line(&mut out, event.at, event.what.name(), &told(event));
        }
        // What was told of before without it.
        let is_new = |episode: &&Episode| tick.events.iter().all(|event| event.key != episode.key || !is_told(event));
        for episode in tick.episodes.iter().filter(|episode| !episode.harmless).filter(is_new) {
            if let Some(root) = episode.root.as_ref().filter(|root| root.since.mono == tick.at.mono) {
                let text = format!("{}{} is because of {}", episode.latest.title, at(&episode.key), named(root));
                self.line(&mut out, tick.at, "note", &text);
            }
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
        let mut told: Vec<&Episode> = watch.episodes().iter().filter(|episode| episode.faulted).collect();
        if told.is_empty() {
            let whole = format!("{out}: {}.", nothing(watch));
            out.clear();
            self.wrapped(&mut out, "", 0, &whole);
            return out;
        }
        out.push_str(":\n");
        told.sort_by_key(|episode| (episode.worst, episode.since.mono));
        for episode in told {
            let label = format!("  {}", word(episode.worst));
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
    !event.harmless && event.what != What::Eased
}

/// What happened, in one sentence behind the word of [`What`].
pub fn told(event: &Event) -> String {
    let at = at(&event.key);
    let because = event.root.as_ref().map_or_else(String::new, |root| format!(" Because of {}.", named(root)));
    match event.what {
        What::Ended => {
            let all = match event.events {
                0 => String::new(),
                events if event.times > 1 => {
                    format!(": {} in all, it came {} times", amount(events, event.unit), event.times)
                }
                events => format!(": {} in all", amount(events, event.unit)),
            };
            format!("{}{at}, after {}{all}", event.title, seconds(event.lasted))
        }
        What::Again if event.times > 2 => {
            format!("{}  {}. For the {} time.{because}", word(event.severity), event.summary, ordinal(event.times))
        }
        What::Worsened => {
            format!("{}  {}, {} per s.{because}", word(event.severity), event.summary, rate(event.per_s))
        }
        _ => format!("{}  {}.{because} [{}]", word(event.severity), event.summary, event.key.id),
    }
}

/// ` (port 8080)`, or nothing for the whole host.
fn at(key: &Key) -> String {
    let place = key.place.to_string();
    if place.is_empty() { place } else { format!(" ({place})") }
}

/// `Accept loop stalled (port 8080)`
fn named(root: &Root) -> String {
    format!("{}{}", root.title, at(&root.key))
}

/// What may be said of a run in which nothing was found.
fn nothing(watch: &Watch) -> String {
    let seen = match watch.filter() {
        all if all.is_empty() => "no fault was found".to_owned(),
        narrow => format!("nothing wrong was seen with {narrow}"),
    };
    match watch.unknown() {
        0 => seen,
        unknown if unknown == watch.ticks() => "too little could be seen to say whether anything was wrong".to_owned(),
        unknown => format!("{seen}, but in {} too little could be seen to say so", counted(unknown, "tick")),
    }
}

fn past(episode: &Episode) -> String {
    let at = at(&episode.key);
    let because = episode.root.as_ref().map_or_else(String::new, |root| format!("; because of {}", named(root)));
    let from = if episode.from_start { "from the start" } else { &clock(episode.since) };
    let until = match episode.phase {
        Phase::Ended => format!("{from} to {}", clock(episode.last)),
        _ => format!("since {from}, still going on").replace("since from", "from"),
    };
    let times = if episode.times > 1 { format!("{} times, the last ", episode.times) } else { String::new() };
    let unit = episode.latest.finding.impact.unit;
    let much = match episode.events {
        0 => String::new(),
        events => format!(" {}, at most {} per s,", amount(events, unit), rate(episode.peak_per_s)),
    };
    let sure = percent(episode.latest.finding.confidence);
    format!("{}{at}:{much} {sure} sure; {times}{until}{because}", episode.latest.title)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cause::Severity;
    use crate::diagnosis::filter::Filter;
    use crate::diagnosis::rank::Ranked;
    use crate::observation::testing::{Case, process};
    use crate::timeline::testing::{Row, follows, ranked};

    /// A window with a full accept queue, or a quiet one, that ends `seconds` after the first.
    fn window(fault: bool, seconds: u64) -> Case {
        let mut case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("TcpExt.ListenOverflows", 0, 0);
        if fault {
            case = case
                .counter("TcpExt.ListenOverflows", 0, 300)
                .sysctl("net.core.somaxconn", "4096")
                .listener("0.0.0.0:80", 5, 6, 60, &process(7, "evil\x1b[31mname"))
                .listener_drops(300)
                .queue(0, 3, 30);
        }
        case.later(Duration::from_secs(seconds))
    }

    fn told(windows: &[bool], width: Option<u16>) -> (Vec<String>, String) {
        let (mut watch, mut lines) = (Watch::new(Filter::default()), Lines::new(width));
        let told = windows.iter().enumerate().map(|(number, fault)| {
            let mut window = window(*fault, 3 * number as u64).window(false);
            lines.tick(&watch.tick(&mut window, &mut |_, _| None).expect("a namespace"))
        });
        let told = told.collect();
        (told, lines.summary(&watch))
    }

    #[test]
    fn a_line_for_each_change_and_none_between() {
        let (told, summary) = told(&[false, true, true, false, false], None);
        assert!(told[0].contains("  OK   ") && told[0].starts_with("Watching "), "{}", told[0]);
        assert!(told[1].contains("appeared  CRITICAL") && told[1].contains("[accept-queue-overflow]"), "{}", told[1]);
        assert_eq!(told[2], "");
        let ended = told[3].lines().next().unwrap_or_default();
        assert!(ended.contains("ended     Accept queue overflow (port 80), after 6 s: 600 "), "{ended}");
        assert_eq!(told[4], "");
        assert!(
            summary.starts_with("Watched 15 s, 5 ticks:\n  CRITICAL  Accept queue overflow (port 80): 600 "),
            "{summary}"
        );
    }

    #[test]
    fn what_follows_is_told_with_what_it_follows_from_as_soon_as_that_is_known() {
        let full = || ranked("accept-queue-overflow", Severity::Critical, 10.0);
        let both = || follows(ranked("accept-loop-stalled", Severity::Critical, 10.0), full());
        let because = |ticks: [&[Ranked]; 3]| {
            let (mut row, mut lines) = (Row::new(), Lines::new(None));
            let told: String = ticks.iter().map(|causes| lines.tick(&row.whole(causes))).collect();
            told.lines().filter(|line| line.to_lowercase().contains("because of accept loop stalled")).count()
        };
        let text = "Because of Accept loop stalled";
        let (mut row, mut lines) = (Row::new(), Lines::new(None));
        let told = lines.tick(&row.whole(&both()));
        let [root, symptom] = ["accept-loop-stalled", "accept-queue-overflow"]
            .map(|id| told.lines().find(|line| line.contains(&format!("[{id}]"))).expect("a line of its own"));
        assert!(symptom.contains(text) && !root.contains(text), "{told}");
        assert_eq!(because([&[full()], &both(), &both()]), 1, "known later, told once");
        assert_eq!(because([&[full()], &[full()], &[full()]]), 0);
    }

    #[test]
    fn the_first_window_may_be_longer_than_the_interval_that_is_announced() {
        let mut window = window(false, 0).window(false);
        window.interval = Duration::from_secs(1);
        let tick = Watch::new(Filter::default()).tick(&mut window, &mut |_, _| None).expect("a namespace");
        assert_eq!(tick.diagnosis.window, Duration::from_secs(3));
        let told = Lines::new(None).tick(&tick);
        assert!(told.contains(", a tick every 1 s;"), "{told}");
    }

    #[test]
    fn a_quiet_watch_says_so_at_the_end() {
        let (_, summary) = told(&[false, false], None);
        assert!(summary.contains("no fault was found"), "{summary}");
        let narrow = self::told(&[true, true], Some(60)).1;
        assert!(narrow.lines().count() > 2 && narrow.lines().all(|line| line.len() <= 60), "{narrow}");
        let never = Lines::new(None).summary(&Watch::new(Filter::default()));
        assert!(never.contains("before the first tick"));
    }

    #[test]
    fn health_is_claimed_only_where_it_was_seen() {
        let watched = |seen: &[bool], filter: Filter| {
            let (mut watch, mut lines, mut told) = (Watch::new(filter), Lines::new(None), String::new());
            for (number, seen) in seen.iter().enumerate() {
                let mut case = window(false, 3 * number as u64);
                if !seen {
                    let failure = crate::value::Failure::new(crate::value::FailureKind::Broken, "too many open files");
                    let unread = crate::value::Observed::Unavailable(failure);
                    case.netns.after.counters.insert(&crate::source::netstat::FILE, unread);
                }
                let tick = watch.tick(&mut case.window(false), &mut |_, _| None).expect("a namespace");
                told.push_str(&lines.tick(&tick));
            }
            (told, lines.summary(&watch))
        };
        let (_, summary) = watched(&[false, false], Filter::default());
        assert!(summary.contains("too little could be seen") && !summary.contains("no fault"), "{summary}");
        let (told, summary) = watched(&[true, false, true], Filter::default());
        assert!(summary.contains("no fault was found") && summary.contains("but in 1 tick too little"), "{summary}");
        let verdicts = |word: &str| told.lines().filter(|line| line.contains(word)).count();
        assert_eq!((verdicts("Z  UNKNOWN"), verdicts("Z  OK ")), (1, 2), "{told}");
        let (_, summary) = watched(&[true], Filter { ports: [80].into(), ..Filter::default() });
        assert!(summary.contains("nothing wrong was seen with port 80"), "{summary}");
    }

    #[test]
    fn names_from_outside_are_harmless_and_lines_fit_the_terminal() {
        let (told, summary) = told(&[true], Some(80));
        let all = told.concat() + &summary;
        assert!(!all.contains('\x1b') && all.contains("evil"), "{all}");
        assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
        let one = self::told(&[true], None).0.concat();
        assert_eq!(one.lines().filter(|line| line.contains("appeared")).count(), 1);
    }
}
