//! The settings of `record`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Live, Terminal, UsageError, netns, positive};
use crate::command::cli::RecordArgs;

const RECORD: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(1);

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
        live: Live { duration, netns: netns(&args.place)?, events: !args.no_events, unattended: false },
        interval,
        redact: args.redact,
        progress: terminal.progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
