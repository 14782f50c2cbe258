//! One page for people who were not there: it needs no network and no script, and a browser enforces that (Content-Security-
//! Policy). What comes from outside is escaped by the template library; characters that hide or turn text are made visible first.

use std::collections::BTreeMap;

use askama::Template;

use super::history::{Calendar, coverage, impact, lasted, reasons, resets, sentence, share, shown, word};
use super::json::Report;
use crate::diagnosis::Status;
use crate::history::{Past, Row, Span};
use crate::value::escape::visible;
use crate::value::words::{counted, percent, rate, seconds, thousands};

mod scan;

pub use scan::scan;

/// Of a drawing; it is scaled to the page.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 40;
/// Services and gaps that are drawn.
const MOST: usize = 12;

/// No page can be made.
#[derive(Debug, thiserror::Error)]
#[error("the page cannot be made: {0}")]
pub struct HtmlError(#[from] askama::Error);

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    host: Option<String>,
    span: String,
    zone: String,
    coverage: String,
    status: &'static str,
    sentence: String,
    episodes: Vec<EpisodeCard>,
    charts: Vec<Chart>,
    width: u64,
    from: String,
    until: String,
    resets: String,
    reasons: Vec<(&'static str, String, String)>,
    unknown: String,
    missing: Vec<String>,
    utc: &'static str,
    version: &'static str,
    redacted: bool,
}

struct EpisodeCard {
    severity: &'static str,
    title: String,
    place: String,
    summary: String,
    when: String,
    at: String,
    lasted: String,
    impact: String,
    evidence: Vec<String>,
    remedies: Vec<String>,
    id: String,
}

/// Columns over the time.
struct Chart {
    title: String,
    note: String,
    bars: Vec<Bar>,
}

struct Bar {
    class: &'static str,
    x: String,
    y: String,
    width: String,
    height: String,
}

/// The page of a time of a store.
///
/// # Errors
/// None in practice.
pub fn history(past: &Past, calendar: &Calendar<'_>, all: bool) -> Result<String, HtmlError> {
    let episodes = shown(past, all).into_iter().map(|episode| EpisodeCard {
        severity: word(episode.severity),
        title: safe(&episode.title),
        place: safe(&episode.place.words()),
        summary: safe(&episode.summary),
        when: calendar.span(episode.span),
        at: (calendar.time)(episode.span.from),
        lasted: lasted(episode),
        impact: safe(&impact(episode)),
        evidence: episode.evidence.iter().map(|text| safe(text)).collect(),
        remedies: episode.remedies.iter().map(|text| safe(text)).collect(),
        id: safe(&episode.id),
    });
    let unknown = match past.account.unknown {
        0 => String::new(),
        unknown => format!("In {unknown} of {} looks too little was seen for a verdict.", past.account.ticks),
    };
    let page = HistoryPage {
        host: past.hostname.as_deref().map(safe),
        span: calendar.span(Span { from: past.wanted.since, until: past.wanted.until }),
        zone: calendar.zone.clone(),
        coverage: coverage(past),
        status: past.account.status.map_or("unknown", Status::name),
        sentence: safe(&sentence(past)),
        episodes: episodes.collect(),
        charts: charts(past),
        width: WIDTH,
        from: (calendar.time)(past.wanted.since),
        until: (calendar.time)(past.wanted.until),
        resets: capital(&resets(past)),
        reasons: reasons(past).into_iter().map(|(d, reason, n)| (d.name(), safe(&reason), thousands(n))).collect(),
        unknown,
        missing: past.missing.iter().take(MOST).map(|span| calendar.span(*span)).collect(),
        utc: if calendar.zone == "UTC" { " --utc" } else { "" },
        version: env!("CARGO_PKG_VERSION"),
        redacted: past.redacted,
    };
    Ok(page.render()?)
}

/// What failed of each service, how full its queue was, and the resets by reason.
fn charts(past: &Past) -> Vec<Chart> {
    let recorded = past.recorded();
    let mut charts = Vec::new();
    for row in past.services.iter().take(MOST) {
        let place = safe(&row.service.place.words());
        let failed: Vec<u64> = row.failed.iter().map(|failed| failed.unwrap_or(0)).collect();
        charts.push(Chart {
            title: format!("{place}: failed or lost"),
            note: share(row),
            bars: bars("bar", &failed, None, &recorded),
        });
        if row.fill.iter().any(|fill| *fill > 0) {
            charts.push(queue(row, &place, &recorded));
        }
    }
    let mut by_reason: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for ((direction, reason), counts) in &past.by_reason {
        by_reason.insert(format!("{} {}", direction.name(), reason.replace('-', " ")), counts.clone());
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
    for (reason, counts) in by_reason.into_iter().take(MOST / 2) {
        let note = counted(counts.iter().sum(), "reset");
        charts.push(Chart {
            title: format!("Resets, {}", safe(&reason)),
            note,
            bars: bars("bar", &counts, None, &recorded),
        });
    }
    charts
}

fn queue(row: &Row, place: &str, recorded: &[bool]) -> Chart {
    let fill: Vec<u64> = row.fill.iter().map(|fill| u64::from(*fill)).collect();
    let highest = fill.iter().copied().max().unwrap_or(0);
    Chart {
        title: format!("{place}: longest accept queue"),
        note: format!(
            "up to {} of backlog {}",
            percent(highest as f64 / 1000.0),
            thousands(u64::from(row.service.backlog))
        ),
        bars: bars("fill", &fill, Some(1000), recorded),
    }
}

/// `whole`: the value of a column of full height; the highest without.
fn bars(class: &'static str, values: &[u64], whole: Option<u64>, recorded: &[bool]) -> Vec<Bar> {
    let highest = whole.unwrap_or_else(|| values.iter().copied().max().unwrap_or(0)).max(1) as f64;
    let step = WIDTH as f64 / values.len().max(1) as f64;
    let bar = |(index, (value, recorded)): (usize, (&u64, &bool))| {
        let (class, height) = match (*value, *recorded) {
            (0, false) => ("gap", HEIGHT as f64),
            (0, true) => return None,
            // Something is never drawn as nothing.
            (value, _) => (class, (value as f64 / highest * HEIGHT as f64).clamp(2.0, HEIGHT as f64)),
        };
        Some(Bar {
            class,
            x: format!("{:.1}", index as f64 * step),
            y: format!("{:.1}", HEIGHT as f64 - height),
            width: format!("{:.1}", (step - 1.0).max(1.0)),
            height: format!("{height:.1}"),
        })
    };
    values.iter().zip(recorded).enumerate().filter_map(bar).collect()
}

fn safe(text: &str) -> String {
    visible(text).into_owned()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
