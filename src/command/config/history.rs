//! The settings of `history`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Home, Point, Terminal, Unit, UsageError, end, not_empty, point, ports, store};
use crate::cause::REGISTRY;
use crate::command::cli::{HistoryArgs, HistoryFormat};
use crate::history::{Wanted, millis};

const SINCE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub store: PathBuf,
    pub wanted: Wanted,
    pub format: HistoryFormat,
    pub all: bool,
    pub terminal: Terminal,
}

/// Validates the arguments of `history`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn history(
    args: &HistoryArgs,
    terminal: Terminal,
    home: &Home,
    now: Duration,
    zone: &TimeZone,
) -> Result<History, UsageError> {
    let since = args.since.as_deref().map(|text| point("--since", text, now, zone)).transpose()?;
    let (since, until) = match (since, args.until.as_deref()) {
        (Some(since), until) => {
            if since.at > now {
                return Err(UsageError::Future { option: "--since", given: args.since.clone().unwrap_or_default() });
            }
            (since.at, until.map_or(Ok(now), |text| end(text, since, now, zone))?)
        }
        (None, until) => {
            let day = Point { at: now.saturating_sub(SINCE), unit: Unit::Ago };
            let until = until.map_or(Ok(now), |text| end(text, day, now, zone))?;
            (until.saturating_sub(SINCE), until)
        }
    };
    if since >= until {
        return Err(UsageError::Backwards { option: "--since" });
    }
    if let Some(given) = args.cause.as_ref().filter(|given| REGISTRY.iter().all(|cause| cause.id != given.as_str())) {
        return Err(UsageError::Cause { given: given.clone() });
    }
    let format = match (args.json, args.format) {
        (true, Some(other)) if other != HistoryFormat::Json => {
            return Err(UsageError::Conflict { one: "--json", other: "--format", why: "give one of them" });
        }
        (true, _) => HistoryFormat::Json,
        (false, format) => format.unwrap_or(HistoryFormat::Table),
    };
    Ok(History {
        store: store(args.store.as_ref(), home)?,
        wanted: Wanted {
            since: millis(since),
            until: millis(until),
            ports: ports(&args.port)?,
            process: not_empty("--process", args.process.as_ref())?,
            cause: args.cause.clone(),
            netns: not_empty("--netns", args.netns.as_ref())?,
        },
        format,
        all: args.all,
        terminal,
    })
}
