//! The settings of `history`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Home, Terminal, UsageError, not_empty, point, ports, store};
use crate::cause::REGISTRY;
use crate::command::cli::{HistoryArgs, HistoryFormat};
use crate::history::Wanted;

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
    let at = |option, text: &Option<String>, otherwise: Duration| {
        text.as_deref().map_or(Ok(otherwise), |text| point(option, text, now, zone))
    };
    let until = at("--until", &args.until, now)?;
    let since = at("--since", &args.since, until.saturating_sub(SINCE))?;
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
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
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
