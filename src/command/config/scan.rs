//! The settings of `scan`.

use std::time::Duration;

use super::{Given, Origin, Terminal, UsageError, duration, filter, look_at};
use crate::cause::Severity;
use crate::command::cli::{FailOn, ScanArgs};
use crate::diagnosis::filter::Filter;
use crate::input::Stored;
use crate::render::{Format, Options, json, table};

const SCAN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub origin: Origin,
    pub format: &'static Format,
    pub filter: Filter,
    /// Severity from which the exit status is 1.
    pub fail_on: Option<Severity>,
    pub options: Options,
    pub terminal: Terminal,
}

/// Validates the arguments of `scan`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn scan(args: &ScanArgs, terminal: Terminal) -> Result<Scan, UsageError> {
    let duration = args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?;
    if args.json && args.format.is_some_and(|format| *format != json::FORMAT) {
        return Err(UsageError::Conflict { one: "--json", other: "--format", why: "give one of them" });
    }
    let format = if args.json { &json::FORMAT } else { args.format.unwrap_or(&table::FORMAT) };
    let not_quiet = [("--all", args.all), ("--json", args.json), ("--format", *format != table::FORMAT)];
    if let Some((other, _)) = not_quiet.into_iter().find(|(_, given)| args.quiet && *given) {
        return Err(UsageError::Conflict { one: "--quiet", other, why: "it prints one line for people" });
    }
    let given = Given { what: args.from.clone(), local: args.local.clone() };
    let given = (!given.what.is_empty()).then_some(Origin::Given(given));
    let origin = look_at(&args.look, given, ("--duration", duration.is_some()), duration.unwrap_or(SCAN))?;
    Ok(Scan {
        format,
        filter: filter(&args.look)?,
        fail_on: args.fail_on.map(FailOn::severity),
        options: Options {
            width: terminal.columns(),
            colour: terminal.colour(),
            all: args.all,
            quiet: args.quiet,
            netns: args.look.place.netns.clone(),
            local_time: None,
            origin: source(&origin),
        },
        origin,
        terminal,
    })
}

/// What was looked into, where that is no running host, for one who reads the report elsewhere.
fn source(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Live(_) => None,
        Origin::Recording(file) => Some(file.display().to_string()),
        Origin::Given(Given { what, .. }) => {
            Some(what.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
        }
        Origin::Stored(Stored { directory, since, until, .. }) => {
            let (since, until) = (json::rfc3339_seconds(*since), json::rfc3339_seconds(*until));
            let directory = directory.display();
            Some(format!("the store of the flight recorder in {directory}, which was asked for {since} to {until}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::config::Live;

    fn scan_with(change: impl FnOnce(&mut ScanArgs)) -> Result<Scan, UsageError> {
        let mut args = ScanArgs::default();
        change(&mut args);
        scan(&args, Terminal::default())
    }

    fn live_for(text: &str) -> Result<Duration, UsageError> {
        match scan_with(|args| args.duration = Some(text.into()))?.origin {
            Origin::Live(live) => Ok(live.duration),
            Origin::Recording(_) | Origin::Given(_) | Origin::Stored(_) => panic!("a live scan"),
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("3s", 3_000),
            ("1m", 60_000),
            ("0s", 0),
            ("3", 3_000),
            ("0.5", 500),
            ("0", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(live_for(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn several_ports_may_be_asked_for() {
        let scan = scan_with(|args| args.look.port = vec!["443".into(), "80".into()]).expect("valid");
        assert_eq!(scan.filter.ports, [80, 443].into());
        for bad in ["-1", "65536", "", "8O"] {
            let error = scan_with(|args| args.look.port = vec![bad.into()]).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn a_bad_duration_is_answered_with_an_example() {
        for text in ["", ".", "3 parsecs", "-3s", "s", "٣s"] {
            let error = live_for(text).expect_err(text);
            assert!(matches!(error, UsageError::Duration { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains("--duration") && error.to_string().contains("500ms"), "{error}");
        }
    }

    #[test]
    fn an_absurd_duration_is_refused() {
        for text in ["25h", "9999999999999999999999s", "90000", "9999999999999999999999999999", "1000000years"] {
            assert!(matches!(live_for(text), Err(UsageError::TooLong { .. })), "{text}");
        }
    }

    #[test]
    fn defaults_are_three_seconds_and_a_table() {
        let scan = scan_with(|_| ()).expect("valid");
        let live = Live {
            duration: Duration::from_secs(3),
            netns: crate::command::config::Netns::All,
            events: true,
            unattended: false,
        };
        assert_eq!((scan.origin, scan.format), (Origin::Live(live), &table::FORMAT));
        assert_eq!(scan.options, Options::default());
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        type Change = fn(&mut ScanArgs);
        let cases: [Change; 9] = [
            |args| (args.from, args.look.place.this_netns) = (vec!["x".into()], true),
            |args| (args.look.place.netns, args.look.place.this_netns) = (Some("blue".into()), true),
            |args| (args.quiet, args.all) = (true, true),
            |args| (args.quiet, args.json) = (true, true),
            |args| (args.json, args.format) = (true, Some(&table::FORMAT)),
            |args| (args.from, args.duration) = (vec!["x".into()], Some("3s".into())),
            |args| (args.from, args.look.place.netns) = (vec!["x".into()], Some("blue".into())),
            |args| (args.from, args.look.no_events) = (vec!["x".into()], true),
            |args| args.look.port = vec!["80".into(), "0".into()],
        ];
        for (index, change) in cases.into_iter().enumerate() {
            assert!(scan_with(change).is_err(), "case {index}");
        }
        assert!(scan_with(|args| (args.json, args.format) = (true, Some(&json::FORMAT))).is_ok());
    }
}
