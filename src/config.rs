//! From arguments to validated settings. Pure: what the environment and the terminal are like is a parameter.

use std::path::PathBuf;
use std::time::Duration;

use crate::cause::Severity;
use crate::cli::{FailOn, Format, Look, RecordArgs, ScanArgs, TraceArgs, WatchArgs};
use crate::filter::Filter;
use crate::render::Options;
use crate::source::reset_events::Direction;
use crate::trace;

/// Arguments that do not make sense: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("{option}: {given:?} is no duration: give a number with a unit, for example 500ms, 3s or 1m")]
    Duration { option: &'static str, given: String },
    #[error("{option}: {given} is too long: at most 24h")]
    TooLong { option: &'static str, given: String },
    #[error("{option}: it must be longer than 0, for example {example}")]
    Zero { option: &'static str, example: &'static str },
    #[error("{one} and {other} exclude each other: {why}")]
    Conflict { one: &'static str, other: &'static str, why: &'static str },
    #[error("--port: no socket has port 0: give 1 to 65535")]
    PortZero,
    #[error("{option}: it is empty")]
    Empty { option: &'static str },
    #[error("{option}: it must be at least 1")]
    NotOne { option: &'static str },
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
}

/// Where an observation comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Live(Live),
    Bundle(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Length of the window; zero reads totals since boot only.
    pub duration: Duration,
    /// Network namespace by name, process id or path; `None` for our own.
    pub netns: Option<String>,
    /// Use the reset tracepoints where possible.
    pub events: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub origin: Origin,
    pub format: Format,
    pub filter: Filter,
    /// Severity from which the exit status is 1.
    pub fail_on: Option<Severity>,
    pub options: Options,
    pub progress: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub output: PathBuf,
    /// `duration` is the length of the whole recording.
    pub live: Live,
    /// Length of each window.
    pub interval: Duration,
    pub redact: bool,
    pub progress: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// `duration` of a live origin is without an end.
    pub origin: Origin,
    /// Time between two ticks; a recording has its own.
    pub interval: Duration,
    /// `None`: until interrupted, or the recording ends.
    pub count: Option<u64>,
    pub output: WatchOutput,
    pub filter: Filter,
    pub terminal: Terminal,
}

/// How a live view is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchOutput {
    /// The whole terminal.
    Screen,
    /// A line for each change.
    Lines,
    /// A report per tick and line.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub filter: trace::Filter,
    pub json: bool,
    /// `None`: until interrupted.
    pub count: Option<u64>,
    /// `None`: until interrupted.
    pub duration: Option<Duration>,
    /// Network namespace by name, process id or path; `None` for our own.
    pub netns: Option<String>,
    pub terminal: Terminal,
}

const SCAN: Duration = Duration::from_secs(3);
const RECORD: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(1);
const WATCH: Duration = Duration::from_secs(2);
/// The interval of a live view, keys included, stays between these.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Validates the arguments of `scan`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn scan(args: &ScanArgs, terminal: Terminal) -> Result<Scan, UsageError> {
    let duration = args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?;
    if args.json && args.format == Some(Format::Table) {
        return Err(UsageError::Conflict { one: "--json", other: "--format table", why: "give one of them" });
    }
    let origin = origin(&args.look, ("--duration", duration.is_some()), duration.unwrap_or(SCAN))?;
    Ok(Scan {
        origin,
        format: if args.json { Format::Json } else { args.format.unwrap_or(Format::Table) },
        filter: filter(&args.look)?,
        fail_on: args.fail_on.map(|level| match level {
            FailOn::Info => Severity::Info,
            FailOn::Warning => Severity::Warning,
            FailOn::Critical => Severity::Critical,
        }),
        options: Options { width: terminal.columns(), colour: terminal.colour(), all: args.all },
        progress: terminal.progress,
    })
}

/// A recording, or a live run of this length. With a recording, no option that shapes a live run may be given.
fn origin(look: &Look, timing: (&'static str, bool), duration: Duration) -> Result<Origin, UsageError> {
    let netns = not_empty("--netns", look.netns.as_ref())?;
    let Some(bundle) = &look.from else { return Ok(Origin::Live(Live { duration, netns, events: !look.no_events })) };
    let excluded = [timing, ("--netns", netns.is_some()), ("--no-events", look.no_events)];
    match excluded.into_iter().find(|(_, given)| *given) {
        Some((other, _)) => {
            Err(UsageError::Conflict { one: "--from", other, why: "a recording holds what was recorded" })
        }
        None => Ok(Origin::Bundle(bundle.clone())),
    }
}

fn filter(look: &Look) -> Result<Filter, UsageError> {
    Ok(Filter { port: port(look.port)?, pid: look.pid, process: not_empty("--process", look.process.as_ref())? })
}

fn port(given: Option<u16>) -> Result<Option<u16>, UsageError> {
    match given {
        Some(0) => Err(UsageError::PortZero),
        given => Ok(given),
    }
}

/// Validates the arguments of `record`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn record(args: &RecordArgs, terminal: Terminal) -> Result<Record, UsageError> {
    let duration = positive("--duration", args.duration.as_ref(), "30s")?.unwrap_or(RECORD);
    // A short recording without an interval is one window.
    let interval = positive("--interval", args.interval.as_ref(), "1s")?.unwrap_or(INTERVAL.min(duration));
    if interval > duration {
        let text = |duration| humantime::format_duration(duration).to_string();
        return Err(UsageError::Interval { interval: text(interval), duration: text(duration) });
    }
    Ok(Record {
        output: args.output.clone().filter(|path| !path.as_os_str().is_empty()).ok_or(UsageError::NoOutput)?,
        live: Live { duration, netns: not_empty("--netns", args.netns.as_ref())?, events: !args.no_events },
        interval,
        redact: args.redact,
        progress: terminal.progress,
    })
}

/// Validates the arguments of `watch`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn watch(args: &WatchArgs, terminal: Terminal) -> Result<Watch, UsageError> {
    let interval = tick_interval(args.interval.as_ref())?;
    if args.count == Some(0) {
        return Err(UsageError::NotOne { option: "--count" });
    }
    let origin = origin(&args.look, ("--interval", interval.is_some()), Duration::MAX)?;
    let screen = terminal.width.is_some() && terminal.keys && !terminal.dumb && !args.no_tui;
    Ok(Watch {
        origin,
        interval: interval.unwrap_or(WATCH),
        count: args.count,
        output: match (args.json, screen) {
            (true, _) => WatchOutput::Json,
            (false, true) => WatchOutput::Screen,
            (false, false) => WatchOutput::Lines,
        },
        filter: filter(&args.look)?,
        terminal,
    })
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

/// Validates the arguments of `trace`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn trace(args: &TraceArgs, terminal: Terminal) -> Result<Trace, UsageError> {
    if args.count == Some(0) {
        return Err(UsageError::NotOne { option: "--count" });
    }
    let direction = match (args.sent, args.received) {
        (true, true) => {
            let why = "without either, both are shown";
            return Err(UsageError::Conflict { one: "--sent", other: "--received", why });
        }
        (true, false) => Some(Direction::Sent),
        (false, true) => Some(Direction::Received),
        (false, false) => None,
    };
    Ok(Trace {
        filter: trace::Filter {
            direction,
            port: port(args.port)?,
            process: not_empty("--process", args.process.as_ref())?,
        },
        json: args.json,
        count: args.count,
        duration: positive("--duration", args.duration.as_ref(), "30s")?,
        netns: not_empty("--netns", args.netns.as_ref())?,
        terminal,
    })
}

/// Validates the time between two ticks.
///
/// # Errors
/// [`UsageError`] says which times are possible.
pub fn tick_interval(text: Option<&String>) -> Result<Option<Duration>, UsageError> {
    let interval = positive("--interval", text, "2s")?;
    let given = |interval| humantime::format_duration(interval).to_string();
    match interval {
        Some(interval) if interval < SHORTEST_INTERVAL => Err(UsageError::TooShort { given: given(interval) }),
        Some(interval) if interval > LONGEST_INTERVAL => Err(UsageError::IntervalTooLong { given: given(interval) }),
        interval => Ok(interval),
    }
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
    let duration = humantime::parse_duration(text.trim()).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => UsageError::TooLong { option, given: text.to_owned() },
        _ => UsageError::Duration { option, given: text.to_owned() },
    })?;
    if duration > LONGEST {
        return Err(UsageError::TooLong { option, given: text.to_owned() });
    }
    Ok(duration)
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

    fn scan_with(change: impl FnOnce(&mut ScanArgs)) -> Result<Scan, UsageError> {
        let mut args = ScanArgs::default();
        change(&mut args);
        scan(&args, Terminal::default())
    }

    fn live_for(text: &str) -> Result<Duration, UsageError> {
        match scan_with(|args| args.duration = Some(text.into()))?.origin {
            Origin::Live(live) => Ok(live.duration),
            Origin::Bundle(_) => panic!("a live scan"),
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("500ms", 500), ("3s", 3_000), ("1m", 60_000), ("0s", 0), ("24h", 86_400_000)] {
            assert_eq!(live_for(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_is_answered_with_an_example() {
        for text in ["", "3", "3 parsecs", "-3s", "s", "٣s"] {
            let error = live_for(text).expect_err(text);
            assert!(matches!(error, UsageError::Duration { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains("--duration") && error.to_string().contains("500ms"), "{error}");
        }
    }

    #[test]
    fn an_absurd_duration_is_refused() {
        for text in ["25h", "9999999999999999999999s", "1000000years"] {
            assert!(matches!(live_for(text), Err(UsageError::TooLong { .. })), "{text}");
        }
    }

    #[test]
    fn defaults_are_three_seconds_and_a_table() {
        let scan = scan_with(|_| ()).expect("valid");
        let live = Live { duration: Duration::from_secs(3), netns: None, events: true };
        assert_eq!((scan.origin, scan.format), (Origin::Live(live), Format::Table));
        assert_eq!(scan.options, Options { width: 80, colour: false, all: false });
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        type Change = fn(&mut ScanArgs);
        let cases: [Change; 5] = [
            |args| (args.json, args.format) = (true, Some(Format::Table)),
            |args| (args.look.from, args.duration) = (Some("x".into()), Some("3s".into())),
            |args| (args.look.from, args.look.netns) = (Some("x".into()), Some("blue".into())),
            |args| (args.look.from, args.look.no_events) = (Some("x".into()), true),
            |args| args.look.port = Some(0),
        ];
        for (index, change) in cases.into_iter().enumerate() {
            assert!(scan_with(change).is_err(), "case {index}");
        }
        assert!(scan_with(|args| (args.json, args.format) = (true, Some(Format::Json))).is_ok());
    }

    #[test]
    fn colour_needs_a_terminal_and_leave() {
        let colour = |width, no_color| Terminal { width, no_color, ..Terminal::default() }.colour();
        assert!(colour(Some(80), false));
        assert!(!colour(Some(80), true));
        assert!(!colour(None, false));
    }

    fn record_with(change: impl FnOnce(&mut RecordArgs)) -> Result<Record, UsageError> {
        let mut args = RecordArgs { output: Some("x.rst".into()), ..RecordArgs::default() };
        change(&mut args);
        record(&args, Terminal::default())
    }

    #[test]
    fn a_recording_has_whole_windows() {
        let defaults = record_with(|_| ()).expect("valid");
        assert_eq!((defaults.live.duration, defaults.interval), (RECORD, INTERVAL));
        let short = record_with(|args| args.duration = Some("500ms".into())).expect("valid");
        assert_eq!(short.interval, Duration::from_millis(500));
        let too_long = record_with(|args| (args.duration, args.interval) = (Some("1s".into()), Some("2s".into())));
        assert!(matches!(too_long, Err(UsageError::Interval { .. })), "{too_long:?}");
        assert!(matches!(record_with(|args| args.interval = Some("0s".into())), Err(UsageError::Zero { .. })));
        assert_eq!(record_with(|args| args.output = None), Err(UsageError::NoOutput));
    }

    #[test]
    fn a_trace_runs_until_interrupted_unless_told_otherwise() {
        let given = |args: &TraceArgs| trace(args, Terminal::default());
        let all = given(&TraceArgs::default()).expect("no argument is needed");
        assert_eq!((all.count, all.duration, all.filter.is_empty()), (None, None, true));
        let sent = given(&TraceArgs { sent: true, ..TraceArgs::default() }).expect("valid");
        assert_eq!(sent.filter.direction, Some(Direction::Sent));
        let both = given(&TraceArgs { sent: true, received: true, ..TraceArgs::default() });
        assert!(matches!(both, Err(UsageError::Conflict { .. })));
        assert_eq!(
            given(&TraceArgs { count: Some(0), ..TraceArgs::default() }),
            Err(UsageError::NotOne { option: "--count" })
        );
        let nothing = given(&TraceArgs { duration: Some("0s".into()), ..TraceArgs::default() });
        assert!(matches!(nothing, Err(UsageError::Zero { .. })));
    }
}
