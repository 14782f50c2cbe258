//! The causes that go on, and those that ended lately.

use super::{Cell, Table, ago, cell, left, plain, rest, right, title};
use crate::cause::{Severity, State as Finding};
use crate::render::verdict::word;
use crate::timeline::{Episode, Phase};
use crate::tui::glyphs::{BOLD, DIM};
use crate::tui::naming::named;
use crate::tui::state::{Pane, State};
use crate::value::words::{percent, rate};

/// The word that stands where the colour is.
pub fn state_word(episode: &Episode) -> &'static str {
    match (episode.phase, episode.latest.finding.state) {
        (Phase::Ended, _) => "ended",
        (_, Finding::Benign) => "harmless",
        _ => word(episode.severity),
    }
}

pub fn table(state: &State, width: usize) -> Table {
    let wide = width >= 100;
    let line = if wide { 30 } else { 11 };
    let mut columns = vec![right("", 2), left("", 8), rest("")];
    if wide {
        columns.push(right("sure", 6));
    }
    columns.extend([right("over time", line), right("per s", 8)]);
    if wide {
        columns.push(right("usual", 8));
    }
    columns.push(right("since", 10));
    let room = super::room(&columns, width);
    let episodes = state.run().tick.as_ref().map_or(&[][..], |tick| &tick.episodes);
    let rows = state.causes().into_iter().map(|episode| {
        // Its number is its rank among all, as the opened cause says it.
        let number = episodes.iter().position(|other| other.key == episode.key).map_or(0, |index| index + 1);
        row(state, number, episode, line, room)
    });
    let rows: Vec<_> = rows.collect();
    let note = match (episodes.is_empty(), rows.is_empty()) {
        (true, _) if state.run().tick.is_some() => Some("none was found so far"),
        (false, true) => Some("none of this port or process: Esc shows all"),
        _ => None,
    };
    let notes = note.map(str::to_owned).into_iter().collect();
    Table { title: title(state, Pane::Causes, "Causes"), columns, rows, notes }
}

fn row(state: &State, number: usize, episode: &Episode, line: usize, room: usize) -> Vec<Cell> {
    let wide = line > 11;
    let glyphs = state.setup.glyphs;
    let ended = episode.phase == Phase::Ended;
    let finding = &episode.latest.finding;
    let style = match (ended, episode.is_alarm()) {
        (true, _) => DIM,
        (_, true) => glyphs.severity(episode.severity),
        _ => glyphs.severity(Severity::Info),
    };
    let latest = match episode.phase {
        Phase::Active if finding.state == Finding::Risk => plain("-"),
        Phase::Active => cell(rate(finding.impact.per_s), if episode.is_alarm() { BOLD } else { DIM }),
        Phase::Quiet => plain("quiet"),
        Phase::Ended => cell("0.0", DIM),
    };
    let since = match (episode.phase, episode.from_start) {
        (Phase::Ended, _) => format!("{} ago", ago(state.now(), episode.last)),
        (_, true) => "the start".to_owned(),
        (_, false) => ago(state.now(), episode.since),
    };
    let name = named(episode.latest.title, &episode.key.place, room);
    let mut cells =
        vec![plain(number.to_string()), cell(state_word(episode), style), cell(name, if ended { DIM } else { BOLD })];
    if wide {
        cells.push(plain(percent(finding.confidence)));
    }
    cells.push(plain(glyphs.sparkline(episode.rates.iter(), line)));
    cells.push(latest);
    if wide {
        cells.push(plain(episode.usual.map_or_else(|| "?".to_owned(), |usual| rate(usual.mean))));
    }
    cells.push(cell(since, if ended { DIM } else { super::PLAIN }));
    cells
}
