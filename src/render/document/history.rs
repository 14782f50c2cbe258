//! What a document tells of a time of a store: episodes, services over the time, resets, and what was not recorded.

use std::collections::BTreeMap;

use super::safe;
use crate::diagnosis::Status;
use crate::history::{Past, Row, Span, total};
use crate::render::history::{
    Calendar, Shown, because, counted_over, coverage, gap, impact, lasted, reasons, resets, sentence, share, shown,
    sparkline, word,
};
use crate::value::words::{counted, percent, thousands};

/// Of a drawing; it is scaled to the page.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 40;
/// Services and gaps that are drawn.
const MOST: usize = 12;

/// What a document tells of a time of a store.
pub struct HistoryView {
    pub host: Option<String>,
    pub span: String,
    pub zone: String,
    pub coverage: String,
    pub status: &'static str,
    pub sentence: String,
    pub episodes: Vec<EpisodeCard>,
    pub charts: Vec<Chart>,
    pub services: Vec<ServiceLine>,
    pub width: u64,
    pub from: String,
    pub until: String,
    pub resets: String,
    pub reasons: Vec<(&'static str, String, String)>,
    pub unknown: String,
    pub missing: Vec<String>,
    pub problems: Vec<String>,
    pub counted: Option<String>,
    pub scan_options: String,
    pub version: &'static str,
    pub redacted: bool,
}

pub struct EpisodeCard {
    pub severity: &'static str,
    pub title: String,
    pub place: String,
    pub summary: String,
    pub when: String,
    pub at: String,
    pub lasted: String,
    pub impact: String,
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
    pub id: String,
    /// `follows from ...`, or nothing.
    pub because: String,
}

/// A service over the time in one line.
pub struct ServiceLine {
    pub place: String,
    pub line: String,
    pub share: String,
}

/// Columns over the time.
pub struct Chart {
    pub title: String,
    pub note: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub class: &'static str,
    pub x: String,
    pub y: String,
    pub width: String,
    pub height: String,
}

/// What is told of it.
pub fn view(past: &Past, calendar: &Calendar<'_>, all: bool) -> HistoryView {
    let episodes = shown(past, all).into_iter().map(|Shown { episode, .. }| EpisodeCard {
        severity: word(episode.severity),
        title: safe(&episode.title),
        place: safe(&episode.place.words()),
        summary: safe(&episode.summary),
        when: calendar.span(episode.span),
        at: (calendar.time)(episode.span.from),
        lasted: lasted(episode, calendar),
        impact: safe(&impact(episode)),
        evidence: episode.evidence.iter().map(|text| safe(text)).collect(),
        remedies: episode.remedies.iter().map(|text| safe(text)).collect(),
        id: safe(&episode.id),
        because: safe(&because(episode)),
    });
    let unknown = match past.account.unknown {
        0 => String::new(),
        unknown => format!("In {unknown} of {} looks too little was seen for a verdict.", past.account.ticks),
    };
    HistoryView {
        host: past.hostname.as_deref().map(safe),
        span: calendar.span(Span { from: past.wanted.since, until: past.wanted.until }),
        zone: calendar.zone.clone(),
        coverage: coverage(past),
        status: past.status().map_or("unknown", Status::name),
        sentence: safe(&sentence(past)),
        episodes: episodes.collect(),
        charts: charts(past),
        services: services(past),
        width: WIDTH,
        from: (calendar.time)(past.wanted.since),
        until: (calendar.time)(past.wanted.until),
        resets: capital(&resets(past)),
        reasons: reasons(past).into_iter().map(|(d, reason, n)| (d.name(), safe(&reason), thousands(n))).collect(),
        unknown,
        missing: past.missing.iter().take(MOST).map(|missing| safe(&gap(missing, calendar))).collect(),
        problems: past.problems.iter().take(MOST).map(|text| safe(text)).collect(),
        counted: counted_over(past, calendar).map(|text| capital(&text)),
        scan_options: calendar.scan_options.clone(),
        version: env!("CARGO_PKG_VERSION"),
        redacted: past.redacted,
    }
}

fn services(past: &Past) -> Vec<ServiceLine> {
    let recorded = past.recorded();
    let highest = past.services.iter().flat_map(|row| row.failed.iter().flatten()).copied().max().unwrap_or(0);
    let line = |row: &Row| ServiceLine {
        place: safe(&row.service.place.words()),
        line: sparkline(row, &recorded, highest, true),
        share: share(row),
    };
    past.services.iter().take(MOST).map(line).collect()
}

/// What failed of each service, how full its queue was, and the resets by reason.
fn charts(past: &Past) -> Vec<Chart> {
    let recorded = past.recorded();
    let mut charts = Vec::new();
    for row in past.services.iter().take(MOST) {
        let place = safe(&row.service.place.words());
        let failed: Vec<u64> = row.failed.iter().map(|failed| failed.unwrap_or(0)).collect();
        charts.push(Chart {
            title: format!("{place}: failed connections and lost attempts"),
            note: share(row),
            bars: bars("bar", &failed, None, &recorded),
        });
        if row.fill.iter().any(|fill| *fill > 0) {
            charts.push(queue(row, &place, &recorded));
        }
    }
    let mut by_reason: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    // They are of the whole host.
    for ((direction, reason), counts) in past.by_reason.iter().filter(|_| !past.wanted.is_narrow()) {
        by_reason.insert(format!("{} {}", direction.name(), reason.replace('-', " ")), counts.clone());
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, counts)| std::cmp::Reverse(total(counts)));
    for (reason, counts) in by_reason.into_iter().take(MOST / 2) {
        let note = counted(total(&counts), "reset");
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

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
