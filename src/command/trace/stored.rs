//! The resets of a time of a store.

use std::process::ExitCode;

use anyhow::bail;

use super::{Told, Writer, finish, output, show_part};
use crate::command::config::Trace;
use crate::command::known::faults::Span;
use crate::command::known::{Known, list, span};
use crate::diagnosis::filter::Filter;
use crate::input::{Stored, parts};
use crate::output::note;
use crate::render::trace::Lines;
use crate::trace::{self, Summary};
use crate::value::Stop;

/// Each part of the time of which there is raw evidence; what they come to is told once.
pub(super) fn run(config: &Trace, asked: &Stored, stop: &Stop) -> anyhow::Result<ExitCode> {
    let (parts, wrong) = parts(asked)?;
    wrong.iter().for_each(|unread| note(&unread.text));
    let trace::Filter { ports, process, .. } = config.filter.clone();
    let known = Known::of(asked, &Filter { ports, process, ..Filter::default() })?;
    if parts.is_empty() {
        bail!("{}", known.instead(asked, !wrong.is_empty()));
    }
    let whole = Span { from: asked.since, until: asked.until };
    let held: Vec<Span> = parts.iter().filter_map(|part| span(part).within(whole)).collect();
    let told: Vec<String> = held.iter().map(|span| asked.span(span.from, span.until)).collect();
    note(&format!("raw evidence of {}:", told.join(", ")));
    let missing = known.outside(asked, &held);
    if !missing.is_empty() {
        note(&format!("there is none of {}", list(&missing, asked)));
    }
    let output = output(config, stop)?;
    let mut writer = Writer::new(config, &output);
    writer.lines = Lines::new(config.terminal.width).of_zone(&asked.zone);
    writer.within = Some(whole);
    let (mut all, mut blind, mut gone): (Option<Summary>, _, _) = (None, None, false);
    for part in parts {
        let own = span(&part).within(whole);
        let Told { mut summary, gone: left, enough } = match show_part(config, part.opened, &mut writer) {
            Ok(told) => told,
            // The recorder may have seen nothing in one run, and more in another.
            Err(error) if !output.has_failed() => {
                blind = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        (summary.started, summary.duration) = own.map_or_else(Default::default, |own| (own.from, own.length()));
        // What the kernel counted is of the time before and after, too.
        summary.counted = None;
        match &mut all {
            Some(all) => all.add_part(summary),
            None => all = Some(summary),
        }
        gone = left;
        if enough || gone {
            break;
        }
    }
    let not_shown = writer.not_shown;
    drop(writer);
    match (all, blind) {
        (Some(mut all), blind) => {
            blind.iter().for_each(|error| note(&error.to_string()));
            all.not_shown = not_shown;
            finish(config, output, &all, gone)
        }
        (None, Some(error)) => Err(error),
        (None, None) => bail!("nothing was recorded of {}", asked.asked()),
    }
}
