//! The settings of `watch`, and the time between two ticks.

use std::time::Duration;

use super::{Origin, Terminal, UsageError, command, filter, look_at, positive, recording};
use crate::cause::Severity;
use crate::command::cli::{FailOn, WatchArgs};
use crate::diagnosis::filter::Filter;

const WATCH: Duration = Duration::from_secs(2);
/// The interval of a live view, keys included, stays between these.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// `duration` of a live origin is without an end.
    pub origin: Origin,
    /// Time between two ticks; a recording has its own.
    pub interval: Duration,
    /// `None`: until interrupted, or the recording ends.
    pub count: Option<u64>,
    pub output: WatchOutput,
    /// Severity from which the exit status is 1.
    pub fail_on: Option<Severity>,
    /// Program and arguments that are run when something happens.
    pub exec: Option<Vec<String>>,
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

/// Validates the arguments of `watch`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn watch(args: &WatchArgs, terminal: Terminal) -> Result<Watch, UsageError> {
    let interval = tick_interval(args.interval.as_ref())?;
    if args.count == Some(0) {
        return Err(UsageError::NotOne { option: "--count" });
    }
    let origin = look_at(&args.look, recording(args.from.as_ref()), ("--interval", interval.is_some()), Duration::MAX)?;
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
        fail_on: args.fail_on.map(FailOn::severity),
        exec: args.exec.as_deref().map(command).transpose()?,
        filter: filter(&args.look)?,
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
