//! `rstdoctor history`: what a store holds.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::state::home;
use super::{NOTHING, when};
use crate::command::cli::{HistoryArgs, HistoryFormat};
use crate::command::config::{self, History, Terminal};
use crate::history::{Past, Span, Wanted, millis};
use crate::kernel::clock;
use crate::output::{Output, note, say};
use crate::render::document;
use crate::render::history::{self as render, Calendar};
use crate::render::json;
use crate::store::{Flaw, ReadProblem, Reading};
use crate::value::escape::visible;

/// Parts of the time in the row of a service, where the page is not narrower.
const BUCKETS: usize = 48;

pub fn run(args: &HistoryArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let zone = when::zone(args.utc);
    let config = config::history(args, terminal, &home(), clock::now().wall, &zone)?;
    let (past, problems) = past(&config.store, config.wanted.clone(), BUCKETS)?;
    if config.format != HistoryFormat::Table {
        problems.iter().for_each(|text| note(text));
    }
    let name = name(&zone, past.wanted.until);
    let scan_options = scan_options(&name, args);
    let calendar = Calendar { time: &|at| local(at, &zone), zone: name, scan_options };
    let output = Output::start(0, &Arc::default())?;
    output.print(&text(&past, &config, &calendar)?)?;
    output.finish()?;
    if past.is_empty() && config.format != HistoryFormat::Table {
        say("rstdoctor: nothing was recorded of that time");
    }
    Ok(if past.is_empty() { ExitCode::from(NOTHING) } else { ExitCode::SUCCESS })
}

fn text(past: &Past, config: &History, calendar: &Calendar<'_>) -> anyhow::Result<String> {
    Ok(match config.format {
        HistoryFormat::Json => json::history_text(past)?,
        HistoryFormat::Markdown => document::history_markdown(past, calendar, config.all)?,
        HistoryFormat::Html => document::history_html(past, calendar, config.all)?,
        HistoryFormat::Table => {
            let options = render::Options {
                width: config.terminal.columns(),
                colour: config.terminal.colour(),
                unicode: config.terminal.unicode,
                all: config.all,
            };
            config.terminal.shown(&render::table(past, calendar, &options)).into_owned()
        }
    })
}

/// What names the same zone, the same store and the same service to another command; what was not given is not named.
fn scan_options(zone: &str, args: &HistoryArgs) -> String {
    let utc = if zone == "UTC" { " --utc" } else { "" };
    // Who pastes it is in another directory.
    let store = args.store.as_deref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let ports = (!args.port.is_empty()).then(|| args.port.join(","));
    let given = [
        ("--store", store.map(|path| path.display().to_string())),
        ("--port", ports),
        ("--process", args.process.clone()),
    ];
    let option = |(name, value): (&str, Option<String>)| {
        let value = visible(&value?).into_owned();
        // What has no NUL, as no argument has, can be quoted.
        Some(format!(" {name} {}", shlex::try_quote(&value).ok()?))
    };
    format!("{utc}{}", given.into_iter().filter_map(option).collect::<String>())
}

/// What a store holds of some time, and what is wrong with it.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn past(store: &Path, wanted: Wanted, buckets: usize) -> anyhow::Result<(Past, Vec<String>)> {
    let reading = Reading::open(store)?;
    let (since, until) = (Duration::from_millis(wanted.since), Duration::from_millis(wanted.until));
    let mut past = Past::new(wanted, buckets);
    let found = reading.entries(since, until, &mut |entry| {
        match entry {
            Some(entry) => past.push(entry),
            None => past.unread(),
        }
        !past.is_complete()
    });
    for ReadProblem { text, file, what } in found {
        match what {
            Flaw::Unreadable(from, until) => {
                past.damaged(text, Some((&file, Span { from: millis(from), until: millis(until) })));
            }
            Flaw::CutOff(at) => past.cut_off(millis(at)),
            Flaw::Odd => past.damaged(text, None),
        }
    }
    let problems = past.problems.clone();
    let mut past = past.finish(reading.is_written().then(|| millis(clock::now().wall)));
    let kept = reading.recorded();
    past.settle_raw(|span| {
        let (since, until) = (Duration::from_millis(span.from), Duration::from_millis(span.until));
        kept.iter().any(|(from, to)| *from <= until && *to >= since)
    });
    Ok((past, problems))
}

/// `2026-11-26 03:12:04` there.
fn local(millis: u64, zone: &TimeZone) -> String {
    let at = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or_default();
    zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `UTC`, `CET`.
fn name(zone: &TimeZone, millis: u64) -> String {
    let at = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or_default();
    zone.to_offset_info(at).abbreviation().to_owned()
}
