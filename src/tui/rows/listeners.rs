//! Listeners with their accept queues, now and at most.

use std::net::SocketAddr;

use super::{Cell, Table, cell, keeps, left, plain, rest, right, title};
use crate::diagnosis::ListenerRow;
use crate::tui::glyphs::{BOLD, DIM};
use crate::tui::history::High;
use crate::tui::state::{Pane, State};
use crate::words::thousands;

pub const ORDERS: [&str; 3] = ["trouble in this run", "queue now", "port"];
const BAR: usize = 8;

pub fn table(state: &State, width: usize) -> Table {
    let wide = width >= 100;
    let mut columns = vec![rest(""), left("", BAR), right("queue", 12), right("most", 6), right("lost", 7)];
    if wide {
        columns.push(left("limit set by", 12));
    }
    columns.push(left("owner", if wide { 24 } else { 20 }));
    let run = state.run();
    let all = run.tick.as_ref().map_or(&[][..], |tick| &tick.diagnosis.listeners);
    let high = |row: &ListenerRow| run.history.listeners.get(&(row.address, row.port)).cloned().unwrap_or_default();
    let mut listeners: Vec<(&ListenerRow, High)> =
        all.iter().filter(|row| is_kept(&state.filter, row)).map(|row| (row, high(row))).collect();
    let share = |queue: u32, backlog: u32| u64::from(queue) * 1_000_000 / u64::from(backlog.max(1));
    match state.sorted[Pane::Listeners as usize] {
        0 => listeners.sort_by_key(|(row, high)| std::cmp::Reverse((high.lost, share(high.queue, row.backlog)))),
        1 => listeners.sort_by_key(|(row, _)| std::cmp::Reverse(share(row.recv_q, row.backlog))),
        _ => listeners.sort_by_key(|(row, _)| (row.port, row.address)),
    }
    let note = match (all.is_empty(), listeners.is_empty()) {
        (true, _) if run.tick.is_some() => Some("nothing listens that can be seen here"),
        (false, true) => Some("none of this port or process"),
        _ => None,
    };
    let rows = listeners.iter().map(|(listener, high)| row(state, listener, high, wide)).collect();
    Table {
        title: title(state, Pane::Listeners, "Listeners"),
        columns,
        rows,
        notes: note.map(str::to_owned).into_iter().collect(),
    }
}

fn is_kept(filter: &str, row: &ListenerRow) -> bool {
    let address = row.address.to_string();
    let mut names: Vec<&str> = row.processes.iter().map(|process| process.name.as_str()).collect();
    names.push(&address);
    keeps(filter, [row.port], &names)
}

fn row(state: &State, listener: &ListenerRow, high: &High, wide: bool) -> Vec<Cell> {
    let endpoint = SocketAddr::new(listener.address, listener.port);
    let name = match listener.sockets {
        0 | 1 => endpoint.to_string(),
        n => format!("{endpoint} x{n}"),
    };
    let full = listener.full_samples > 0;
    // The kernel admits one connection more than the limit, so 6/5 is right.
    let queue = format!("{}/{}{}", listener.recv_q, listener.backlog, if full { " full" } else { "" });
    let lost = match listener.drops {
        None if high.lost == 0 => plain("?"),
        _ => {
            cell(thousands(high.lost), if listener.drops.is_some_and(|drops| drops > 0) { BOLD } else { super::PLAIN })
        }
    };
    let owner = match &listener.processes[..] {
        [] => "not visible".to_owned(),
        [process] => format!("{} {}", process.name, process.pid),
        [process, more @ ..] => format!("{} {} +{}", process.name, process.pid, more.len()),
    };
    let trouble = full || high.lost > 0;
    let mut cells = vec![
        cell(name, if trouble { BOLD } else { super::PLAIN }),
        plain(state.setup.glyphs.bar(listener.recv_q.into(), listener.backlog.into(), BAR)),
        cell(queue, if full { BOLD } else { super::PLAIN }),
        cell(thousands(high.queue.into()), if high.queue == 0 { DIM } else { super::PLAIN }),
        lost,
    ];
    if wide {
        cells.push(plain(listener.binding_limit.map_or("?", |limit| limit.name())));
    }
    cells.push(plain(owner));
    cells
}
