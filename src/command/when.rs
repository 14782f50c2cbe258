//! Times that a command was given, as people write them: what they mean now and here.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::cli::{Command, ScanArgs, Span, TraceArgs, WatchArgs, When};
use super::config::{self, Unit, UsageError};
use super::state::home;
use crate::input::{Stored, is_report};
use crate::kernel::clock;
use crate::output::say;
use crate::store::is_store;
use crate::value::escape::visible;

/// What `--at` means, by what was named: of a time that says seconds, so much as a live scan looks at.
const MOMENT: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What `watch --at` plays.
const PLAYED: Duration = Duration::from_secs(3600);

/// The zone of times without one.
pub fn zone(utc: bool) -> TimeZone {
    if utc {
        return TimeZone::UTC;
    }
    TimeZone::try_system().unwrap_or_else(|_| {
        // Without one and without /etc/localtime it is UTC, tzset(3).
        if let Some(name) = std::env::var("TZ").ok().filter(|name| !name.is_empty()) {
            say(visible(&format!("rstdoctor: TZ={name} is no time zone that is known here: times are UTC")));
        }
        TimeZone::UTC
    })
}

/// Finds out what a command was asked about.
///
/// # Errors
/// [`UsageError`]: what is no time, or options that exclude each other.
pub fn resolve(command: &mut Command) -> Result<(), UsageError> {
    match command {
        Command::Scan(ScanArgs { look, from, .. }) => {
            // A store is the only thing that is looked into, or none of them.
            let mut only = if from.len() == 1 { from.first().cloned() } else { None };
            let When { at, span } = &mut look.when;
            span.stored = stored(at.as_deref(), span, &mut only, None)?;
            if only.is_none() && from.len() == 1 {
                from.clear();
            }
            if span.stored.is_some() && !from.is_empty() {
                return Err(with_from());
            }
            Ok(())
        }
        Command::Watch(WatchArgs { look, from, .. }) => {
            let When { at, span } = &mut look.when;
            span.stored = stored(at.as_deref(), span, from, Some(PLAYED))?;
            Ok(())
        }
        Command::Trace(TraceArgs { span, from, .. }) => {
            span.stored = stored(None, span, from, None)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn with_from() -> UsageError {
    UsageError::Conflict {
        one: "--from",
        other: "--at or --since",
        why: "what was kept elsewhere is judged as a whole",
    }
}

/// `from` may name a store: then a time is needed.
fn stored(
    at: Option<&str>,
    span: &Span,
    from: &mut Option<PathBuf>,
    length: Option<Duration>,
) -> Result<Option<Stored>, UsageError> {
    let directory = from.take_if(|path| path.is_dir() && !is_report(path));
    if let Some(given) = directory.as_ref().filter(|path| !is_store(path)) {
        return Err(UsageError::Directory { given: given.clone() });
    }
    let Some(first) = at.or(span.since.as_deref()) else {
        return match (directory, &span.store) {
            (Some(_), _) => Err(UsageError::NoTime { option: "--from" }),
            (None, Some(_)) => Err(UsageError::NoTime { option: "--store" }),
            (None, None) if span.utc => Err(UsageError::UtcAlone),
            (None, None) => Ok(None),
        };
    };
    if from.is_some() {
        return Err(with_from());
    }
    let (now, zone) = (clock::now().wall, zone(span.utc));
    let option = if at.is_some() { "--at" } else { "--since" };
    let point = config::point(option, first, now, &zone)?;
    let since = point.at;
    if since > now {
        return Err(UsageError::Future { option, given: first.to_owned() });
    }
    let until = match (at, &span.until) {
        (Some(_), _) => since.saturating_add(length.unwrap_or(match point.unit {
            Unit::Second => MOMENT,
            // Less than a minute ago a minute would reach into what is still to come.
            Unit::Ago if now.saturating_sub(since) <= MINUTE => MOMENT,
            Unit::Minute | Unit::Ago => MINUTE,
            Unit::Day => DAY,
        })),
        (None, Some(until)) => config::end(until, point, now, &zone)?,
        (None, None) => now,
    };
    if until <= since {
        return Err(UsageError::Backwards { option });
    }
    let directory = config::store(directory.or_else(|| span.store.clone()).as_ref(), &home())?;
    Ok(Some(Stored { directory, since, until, zone }))
}
