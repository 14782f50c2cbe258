//! The latest single resets, newest first, or why they are not visible.

use super::{Table, plain, rest, title};
use crate::render::trace::Lines;
use crate::trace::Reset;
use crate::tui::state::{Pane, State};
use crate::value::Missing;

pub fn table(state: &State, width: usize) -> Table {
    let mut table =
        Table { title: title(state, Pane::Resets, "Latest resets"), columns: vec![rest("")], ..Table::default() };
    let run = state.run();
    let Some(tick) = &run.tick else { return table };
    // One line of text each, where there is room for it.
    let mut lines = Lines::new(u16::try_from(width).ok());
    for reset in run.history.resets.iter().rev().filter(|reset| is_kept(state, reset)) {
        let mut text = String::new();
        lines.reset(&mut text, reset);
        table.rows.extend(text.lines().map(|line| vec![plain(line)]));
    }
    let mut missing = tick.diagnosis.not_checked.iter().map(|entry| &entry.missing);
    table.notes = match missing.find(|missing| missing.source == "reset_events") {
        Some(missing) => why(state, missing, if table.rows.is_empty() { "not visible" } else { "only packets" }),
        None if !table.rows.is_empty() => Vec::new(),
        None if state.filter.is_empty() => vec!["none so far".to_owned()],
        None => vec!["none of this port or process".to_owned()],
    };
    table
}

fn is_kept(state: &State, reset: &Reset) -> bool {
    let ports = [reset.joined.local(), reset.joined.peer()].into_iter().flatten().map(|end| end.port());
    let name = reset.process.as_ref().map_or("", |process| process.name.as_str());
    state.keeps(ports, &[name])
}

/// Why there are none, and the one command that changes it.
fn why(state: &State, missing: &Missing, what: &str) -> Vec<String> {
    let reason = &missing.reason;
    let root = state.run().tick.as_ref().is_none_or(|tick| tick.diagnosis.host.uid == Some(0));
    let needs = missing.needs.as_deref().unwrap_or_default();
    let command = if state.setup.playback.is_some() || needs.is_empty() {
        return vec![format!("{what}: {reason}")];
    } else if !root {
        "sudo rstdoctor watch"
    } else if reason.contains("not mounted") {
        "mount -t tracefs tracefs /sys/kernel/tracing"
    } else {
        return vec![format!("{what}: {reason}; needs {needs}")];
    };
    vec![format!("{what}: {reason}. To see more:"), format!("  {command}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::reset_events::Direction;
    use crate::trace::testing::{event, joined};
    use crate::trace::{Basis, Process};
    use crate::tui::state::tests::{state, ticks};
    use crate::tui::{Event, Key};

    fn with_resets(count: u16) -> State {
        let mut state = state(false);
        let mut tick = ticks(2).remove(1);
        let reset = |number: u16| {
            let peer = format!("10.0.3.7:{}", 50_000 + number);
            let mut reset = joined(Some(event(Direction::Sent, "10.0.0.9:9000", &peer)), None);
            reset.process = Some(Process { pid: 977, name: "api\x1b[2J".to_owned(), basis: Basis::Event });
            reset
        };
        tick.resets = (0..count).map(reset).collect();
        state.update(Event::Tick(Box::new(tick)));
        state
    }

    fn text(table: &Table) -> Vec<&str> {
        table.rows.iter().map(|row| row[0].text.as_str()).collect()
    }

    #[test]
    fn the_newest_comes_first_and_nothing_raw_reaches_the_terminal() {
        let state = with_resets(3);
        let table = table(&state, 150);
        let lines = text(&table);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("10.0.3.7:50002") && lines[2].contains("10.0.3.7:50000"), "{lines:?}");
        assert!(!lines.concat().contains('\x1b'), "{lines:?}");
    }

    #[test]
    fn a_narrow_pane_uses_two_lines_and_the_filter_keeps_them_together() {
        let mut state = with_resets(3);
        assert_eq!(table(&state, 78).rows.len(), 6);
        "/50001".chars().for_each(|letter| drop(state.update(Event::Key(Key::Char(letter)))));
        let table = table(&state, 78);
        assert!(matches!(text(&table)[..], [first, _] if first.contains("50001")), "{:?}", text(&table));
    }
}
