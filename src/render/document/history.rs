//! What a document tells of a time of a store: episodes, services over the time, resets, and what was not recorded.

use std::time::Duration;

use super::chart::{Chart, MOST, QUARTERS, WIDTH, charts, quiet, ticks};
use super::safe;
use crate::diagnosis::Status;
use crate::history::{Past, Row, Span};
use crate::render::history::{
    Calendar, NO_RAW, Shown, because, counted_over, coverage, gap, impact, lasted, raw_gap, reasons, resets, sentence,
    share, shown, sparkline, word,
};
use crate::render::json;
use crate::value::words::{seconds, thousands};

/// What a document tells of a time of a store.
pub struct HistoryView {
    pub host: Option<String>,
    pub span: String,
    pub zone: String,
    pub coverage: String,
    pub status: &'static str,
    pub sentence: String,
    pub episodes: Vec<EpisodeCard>,
    /// The same, each cause at each place once.
    pub cards: Vec<EpisodeCard>,
    pub charts: Vec<Chart>,
    /// Services of which nothing is drawn.
    pub quiet: Vec<String>,
    pub services: Vec<ServiceLine>,
    pub width: u64,
    /// Where the lines of a drawing are that part its time.
    pub lines: Vec<u64>,
    pub ticks: Vec<String>,
    /// What the highest column of a line of text stands for.
    pub highest: Option<String>,
    pub from: String,
    pub until: String,
    pub resets: String,
    pub reasons: Vec<(&'static str, String, String)>,
    pub unknown: String,
    pub missing: Vec<String>,
    pub raw_missing: Vec<String>,
    pub problems: Vec<String>,
    pub counted: Option<String>,
    pub version: &'static str,
    pub redacted: bool,
}

#[derive(Clone)]
pub struct EpisodeCard {
    pub severity: &'static str,
    pub title: String,
    pub place: String,
    pub summary: String,
    pub when: String,
    pub at: String,
    /// What tells more of it, in whatever zone it is pasted, and what to say before it.
    pub command: String,
    pub lead: String,
    pub has_raw: bool,
    pub lasted: String,
    pub impact: String,
    /// Of a card: each time that it was there.
    pub times: Vec<String>,
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
    pub id: String,
    /// `follows from ...`, or nothing.
    pub because: String,
    /// What it follows from is told as well: more than that it happened is told there.
    pub follows: bool,
}

/// A service over the time in one line.
pub struct ServiceLine {
    pub place: String,
    pub line: String,
    pub share: String,
}

/// What is told of it.
pub fn view(past: &Past, calendar: &Calendar<'_>, all: bool) -> HistoryView {
    // What the times are in is said with them.
    let scan_options = calendar.scan_options.replacen(" --utc", "", 1);
    let episodes = shown(past, all).into_iter().map(|Shown { episode, follows }| EpisodeCard {
        severity: word(episode.severity),
        title: safe(&episode.title),
        place: safe(&episode.place.words()),
        summary: safe(&episode.summary),
        when: calendar.span(episode.span),
        at: (calendar.time)(episode.span.from),
        command: match episode.has_raw {
            true => format!(
                "rstdoctor scan --at {}{scan_options}",
                json::rfc3339_seconds(Duration::from_millis(episode.asked_for_at()))
            ),
            false => format!("rstdoctor explain {}", safe(&episode.id)),
        },
        lead: match episode.has_raw {
            true => "Judged again, with what to type against it, by".to_owned(),
            false => format!("This {NO_RAW}"),
        },
        has_raw: episode.has_raw,
        times: Vec::new(),
        lasted: lasted(episode, calendar),
        impact: safe(&impact(episode)),
        evidence: episode.evidence.iter().map(|text| safe(text)).collect(),
        remedies: episode.remedies.iter().map(|text| safe(text)).collect(),
        id: safe(&episode.id),
        because: safe(&because(episode)),
        follows,
    });
    let episodes: Vec<EpisodeCard> = episodes.collect();
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
        cards: cards(&episodes),
        episodes,
        charts: charts(past),
        quiet: quiet(past),
        services: services(past),
        width: WIDTH,
        lines: (1..QUARTERS).map(|quarter| WIDTH / QUARTERS * quarter).collect(),
        ticks: ticks(past, calendar),
        highest: Some(past.highest())
            .filter(|highest| *highest > 0)
            .map(|highest| format!("{} in {}", thousands(highest), seconds(past.part()))),
        from: (calendar.time)(past.wanted.since),
        until: (calendar.time)(past.wanted.until),
        resets: capital(&resets(past)),
        reasons: reasons(past).into_iter().map(|(d, reason, n)| (d.word(), safe(&reason), thousands(n))).collect(),
        unknown,
        missing: past.missing.iter().take(MOST).map(|missing| safe(&gap(missing, calendar))).collect(),
        raw_missing: past.raw_missing.iter().take(MOST).map(|lost| safe(&capital(&raw_gap(lost, calendar)))).collect(),
        problems: past.problems.iter().take(MOST).map(|text| safe(text)).collect(),
        counted: counted_over(past, calendar).map(|text| capital(&text)),
        version: env!("CARGO_PKG_VERSION"),
        redacted: past.redacted,
    }
}

fn services(past: &Past) -> Vec<ServiceLine> {
    let recorded = past.recorded();
    let highest = past.highest();
    let line = |row: &Row| ServiceLine {
        place: safe(&row.service.place.words()),
        line: sparkline(row, &recorded, highest, true),
        share: share(past, row),
    };
    past.services.iter().take(MOST).map(line).collect()
}

/// One card for each cause at each place, of the worst of its times, and when else it was there.
fn cards(episodes: &[EpisodeCard]) -> Vec<EpisodeCard> {
    let rank = |card: &EpisodeCard| ["CRITICAL", "WARNING"].iter().position(|word| *word == card.severity).unwrap_or(2);
    let mut cards: Vec<EpisodeCard> = Vec::new();
    for episode in episodes {
        let time = format!("{}, {} · {}", episode.when, episode.lasted, episode.impact);
        let known = cards.iter_mut().find(|card| (&card.id, &card.place) == (&episode.id, &episode.place));
        match known {
            None => cards.push(EpisodeCard { times: vec![time], ..episode.clone() }),
            Some(card) => {
                let mut times = std::mem::take(&mut card.times);
                times.push(time);
                // Where it once followed from nothing, that time tells how to mend it.
                if (episode.follows, rank(episode)) <= (card.follows, rank(card)) {
                    *card = episode.clone();
                }
                card.times = times;
            }
        }
    }
    cards
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
