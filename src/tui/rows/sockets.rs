//! Sockets by state, as the latest sweep saw them, and what changed since the one before.

use super::{Table, cell, plain, rest, right, title};
use crate::tui::glyphs::{BOLD, DIM};
use crate::tui::state::{Pane, State};
use crate::value::words::{seconds, thousands};

pub fn table(state: &State) -> Table {
    let columns = vec![rest(""), right("now", 10), right("change", 10)];
    let run = state.run();
    let age = run.tick.as_ref().map(|tick| tick.sweep.age).unwrap_or_default();
    let mut name = "Sockets".to_owned();
    if !state.filter.is_empty() {
        name.push_str(", whole host");
    }
    if age.as_secs() >= 3 {
        name.push_str(&format!(", {} ago", seconds(age)));
    }
    let mut table = Table { title: title(state, Pane::Sockets, &name), columns, ..Table::default() };
    let Some(sockets) = &run.history.sockets else {
        if run.tick.is_some() {
            table.notes.push("not visible here".to_owned());
        }
        return table;
    };
    let mut counts: Vec<_> = sockets.now.iter().map(|(state, count)| (*state, *count)).collect();
    // A state that emptied is a change, too.
    let gone = sockets.before.iter().flatten().filter(|(state, _)| !sockets.now.contains_key(state));
    counts.extend(gone.map(|(state, _)| (*state, 0)));
    counts.sort();
    for (tcp_state, now) in counts {
        let before = sockets.before.as_ref().map(|before| before.get(&tcp_state).copied().unwrap_or(0));
        let change = match before {
            Some(before) if now > before => cell(format!("+{}", thousands(now - before)), BOLD),
            Some(before) if now < before => cell(format!("-{}", thousands(before - now)), BOLD),
            _ => cell("", DIM),
        };
        table.rows.push(vec![plain(tcp_state.name()), plain(thousands(now)), change]);
    }
    if let Some(orphans) = sockets.orphans {
        table.rows.push(vec![plain("without a process, host-wide"), plain(thousands(orphans)), plain("")]);
    }
    if table.rows.is_empty() {
        table.notes.push("none".to_owned());
    }
    table
}
