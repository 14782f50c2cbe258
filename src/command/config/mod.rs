//! From arguments to validated settings. Pure: what the environment and the terminal are like is a parameter.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::cli::{InNetns, Look};
use crate::diagnosis::filter::Filter;
use crate::value::escape::ascii;

mod agent;
mod history;
mod record;
mod scan;
mod time;
mod trace;
mod watch;

pub use crate::input::{Given, Live, Netns, Origin};
pub use agent::{Agent, Home, agent, command, span, store};
pub use history::{History, history};
pub use record::{Record, record};
pub use scan::{Scan, scan};
pub use time::{Point, Unit, end, point};
pub use trace::{Trace, trace};
pub use watch::{LONGEST_INTERVAL, SHORTEST_INTERVAL, Watch, WatchOutput, tick_interval, watch};

const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Arguments that do not make sense: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("{option}: {given:?} is no duration: give seconds, or a number with a unit, for example 500ms, 3s or 1m")]
    Duration { option: &'static str, given: String },
    #[error("{option}: {given} is too long: at most 24h")]
    TooLong { option: &'static str, given: String },
    #[error("{option}: it must be longer than 0, for example {example}")]
    Zero { option: &'static str, example: &'static str },
    #[error("{one} and {other} exclude each other: {why}")]
    Conflict { one: &'static str, other: &'static str, why: &'static str },
    #[error("--port: {given:?} is no port: give 1 to 65535, or the name of a service")]
    Port { given: String },
    #[error("--port: {file} has no TCP service {given:?}: give its number")]
    NoService { given: String, file: &'static str },
    #[error("{option}: it is empty")]
    Empty { option: &'static str },
    #[error("{option}: it must be at least 1")]
    NotOne { option: &'static str },
    #[error("{option}: {given:?} is no time: give a number with a unit, for example 12h or 7d")]
    Span { option: &'static str, given: String },
    #[error("--keep: {given} is too short: at least 1h, because what is stored goes in files of up to an hour")]
    KeepTooShort { given: String },
    #[error("{option}: {given} is too long: at most 10 years")]
    SpanTooLong { option: &'static str, given: String },
    #[error(
        "{option}: {given:?} is no time: for example 03:12, \"2026-11-26 03:12\", 2026-11-26T03:12:00Z, or 24h for a day ago"
    )]
    Time { option: &'static str, given: String },
    #[error("{option}: a store needs a time: --at 03:12, or --since 24h; rstdoctor history lists what there is")]
    NoTime { option: &'static str },
    #[error(
        "--from: {given:?} is a directory, but neither a store of rstdoctor agent nor an unpacked sosreport; name a file in it"
    )]
    Directory { given: PathBuf },
    #[error("--utc without a time: it says in which zone the times of --at, --since and --until are")]
    UtcAlone,
    #[error("{option}: it ends before it begins")]
    Backwards { option: &'static str },
    #[error("{option}: {given} is still to come")]
    Future { option: &'static str, given: String },
    #[error("--cause: there is no cause {given:?}; rstdoctor explain lists them")]
    Cause { given: String },
    #[error("--max-size: {given:?} is no size: give a number with a unit, for example 500M or 2G")]
    Size { given: String },
    #[error("--max-size {given} is too small: at least 8M, so that the index of some days fits")]
    TooSmall { given: String },
    #[error(
        "--listen: {given:?} is no address: give a port, or an address and port, for example 127.0.0.1:9469 or [::1]:9469"
    )]
    Address { given: String },
    #[error("--exec: {given:?} is no command: give a program and its arguments, quoted as for a shell")]
    Command { given: String },
    #[error(
        "--store is missing: neither XDG_STATE_HOME nor HOME says, by an absolute path, where this user keeps state"
    )]
    NoStore,
    #[error("--output is missing: say where the recording goes, for example: rstdoctor record -o web.rst")]
    NoOutput,
    #[error("--interval {given} is too long: at most 1h")]
    IntervalTooLong { given: String },
    #[error("--interval {given} is too short: at least 100ms, because a tick costs about 1 ms of CPU")]
    TooShort { given: String },
    #[error("--interval {interval} is longer than --duration {duration}: no window would be complete")]
    Interval { interval: String, duration: String },
}

/// What is on the other side of standard output and standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminal {
    /// Columns of standard output; `None` if it is no terminal.
    pub width: Option<u16>,
    /// Standard input is a terminal, so keys can be read.
    pub keys: bool,
    /// It cannot move the cursor (TERM is "dumb", or not set).
    pub dumb: bool,
    /// Its locale is UTF-8 and it can show block characters.
    pub unicode: bool,
    /// Standard error is a terminal, so progress can be shown.
    pub progress: bool,
    /// NO_COLOR is set and not empty (no-color.org).
    pub no_color: bool,
}

impl Terminal {
    /// Columns to write for, 80 in a log.
    pub fn columns(&self) -> u16 {
        self.width.unwrap_or(80)
    }

    pub fn colour(&self) -> bool {
        self.width.is_some() && !self.no_color
    }

    /// The text in the characters of the locale.
    pub fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.unicode { Cow::Borrowed(text) } else { ascii(text) }
    }
}

/// How many scenarios of the lab run at the same time.
///
/// # Errors
/// [`UsageError`]: none at all.
pub fn jobs(given: Option<usize>) -> Result<usize, UsageError> {
    match given {
        Some(0) => Err(UsageError::NotOne { option: "--jobs" }),
        given => Ok(given.unwrap_or(1)),
    }
}

/// What was given, or a live run. With evidence from elsewhere, no option that shapes a live run may be given.
fn origin<const N: usize>(
    from: Option<Origin>,
    shaping: [(&'static str, bool); N],
    live: Live,
) -> Result<Origin, UsageError> {
    let Some(from) = from else { return Ok(Origin::Live(live)) };
    match shaping.into_iter().find(|(_, given)| *given) {
        Some((other, _)) => Err(UsageError::Conflict { one: "--from", other, why: "it holds what was recorded then" }),
        None => Ok(from),
    }
}

fn recording(path: Option<&PathBuf>) -> Option<Origin> {
    path.cloned().map(Origin::Recording)
}

/// The origin of a scan or watch.
fn look_at(
    look: &Look,
    from: Option<Origin>,
    timing: (&'static str, bool),
    duration: Duration,
) -> Result<Origin, UsageError> {
    let netns = netns(&look.place)?;
    let shaping = [
        timing,
        ("--netns", look.place.netns.is_some()),
        ("--this-netns", look.place.this_netns),
        ("--no-events", look.no_events),
    ];
    if let Some(stored) = &look.when.span.stored {
        return match shaping.into_iter().find(|(_, given)| *given) {
            Some((other, _)) => {
                Err(UsageError::Conflict { one: "--at or --since", other, why: "a store holds what was recorded" })
            }
            None => Ok(Origin::Stored(stored.clone())),
        };
    }
    origin(from, shaping, Live { duration, netns, events: !look.no_events, unattended: false })
}

fn netns(place: &InNetns) -> Result<Netns, UsageError> {
    match (not_empty("--netns", place.netns.as_ref())?, place.this_netns) {
        (Some(_), true) => {
            Err(UsageError::Conflict { one: "--netns", other: "--this-netns", why: "each names one network namespace" })
        }
        (Some(spec), false) => Ok(Netns::Named(spec)),
        (None, true) => Ok(Netns::Own),
        (None, false) => Ok(Netns::All),
    }
}

fn filter(look: &Look) -> Result<Filter, UsageError> {
    Ok(Filter { ports: ports(&look.port)?, pid: look.pid, process: not_empty("--process", look.process.as_ref())? })
}

/// Ports by their numbers.
fn ports(given: &[String]) -> Result<BTreeSet<u16>, UsageError> {
    let port = |text: &String| match text.parse() {
        // No socket has port 0.
        Ok(0) | Err(_) => Err(UsageError::Port { given: text.clone() }),
        Ok(port) => Ok(port),
    };
    given.iter().map(port).collect()
}

fn positive(
    option: &'static str,
    text: Option<&String>,
    example: &'static str,
) -> Result<Option<Duration>, UsageError> {
    match text.map(|text| duration(option, text)).transpose()? {
        Some(Duration::ZERO) => Err(UsageError::Zero { option, example }),
        duration => Ok(duration),
    }
}

fn duration(option: &'static str, text: &str) -> Result<Duration, UsageError> {
    let duration = match plain_seconds(text.trim()) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        None => humantime::parse_duration(text.trim()).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => UsageError::TooLong { option, given: text.to_owned() },
            _ => UsageError::Duration { option, given: text.to_owned() },
        })?,
    };
    if duration > LONGEST {
        return Err(UsageError::TooLong { option, given: text.to_owned() });
    }
    Ok(duration)
}

/// `3`, `0.5`: digits with at most one point.
fn plain_seconds(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

fn not_empty(option: &'static str, text: Option<&String>) -> Result<Option<String>, UsageError> {
    match text {
        Some(text) if text.is_empty() => Err(UsageError::Empty { option }),
        text => Ok(text.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_leave() {
        let colour = |width, no_color| Terminal { width, no_color, ..Terminal::default() }.colour();
        assert!(colour(Some(80), false));
        assert!(!colour(Some(80), true));
        assert!(!colour(None, false));
    }
}
