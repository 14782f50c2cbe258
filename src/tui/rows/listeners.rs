//! Listeners with their accept queues, now and at most.

use std::net::SocketAddr;

use super::{Cell, Column, Table, cell, left, plain, rest, right, room, title};
use crate::diagnosis::ListenerRow;
use crate::tui::glyphs::{BOLD, DIM};
use crate::tui::history::High;
use crate::tui::state::{Pane, State};
use crate::value::words::thousands;

const BAR: usize = 8;

pub fn table(state: &State, width: usize) -> Table {
    let wide = width >= 100;
    let mut columns = vec![rest(""), left("", BAR), right("queue", 12), right("most", 6), right("lost ≤", 7)];
    if wide {
        columns.push(left("limit set by", 12));
    }
    let run = state.run();
    let all = run.tick.as_ref().map_or(&[][..], |tick| &tick.diagnosis.listeners);
    let high = |row: &ListenerRow| run.history.listeners.get(&(row.address, row.port)).cloned().unwrap_or_default();
    let mut listeners: Vec<(&ListenerRow, High)> =
        all.iter().filter(|row| is_kept(state, row)).map(|row| (row, high(row))).collect();
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
    columns.push(left("owner", if wide { 24 } else { 20 }));
    let longest = listeners.iter().map(|(listener, _)| endpoint(listener).chars().count()).max().unwrap_or(0);
    make_room(&mut columns, width, longest);
    let for_name = room(&columns, width);
    let rows = listeners.iter().map(|(listener, high)| row(state, listener, high, wide, for_name)).collect();
    Table {
        title: title(state, Pane::Listeners, "Listeners"),
        columns,
        rows,
        notes: note.map(str::to_owned).into_iter().collect(),
    }
}

/// The owner's column gives way to the address, down to what still tells one program from another.
fn make_room(columns: &mut [Column], width: usize, wanted: usize) {
    const SHORTEST_OWNER: usize = 8;
    let lacks = wanted.saturating_sub(room(columns, width));
    if let Some(owner) = columns.last_mut().and_then(|column| column.width.as_mut()) {
        *owner = owner.saturating_sub(lacks).max(SHORTEST_OWNER);
    }
}

fn endpoint(listener: &ListenerRow) -> String {
    let endpoint = SocketAddr::new(listener.address, listener.port);
    match listener.sockets {
        0 | 1 => endpoint.to_string(),
        n => format!("{endpoint} x{n}"),
    }
}

/// Cut where it says least: the port stays.
fn shortened(name: String, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name;
    }
    let port = name.rfind(':').and_then(|at| name.get(at..)).unwrap_or_default();
    let left = room.saturating_sub(port.chars().count() + 1);
    name.chars().take(left).chain(['…']).chain(port.chars()).collect()
}

fn is_kept(state: &State, row: &ListenerRow) -> bool {
    let address = row.address.to_string();
    let mut names: Vec<&str> = row.processes.iter().map(|process| process.name.as_str()).collect();
    names.push(&address);
    state.keeps([row.port], &names)
}

fn row(state: &State, listener: &ListenerRow, high: &High, wide: bool, room: usize) -> Vec<Cell> {
    let name = shortened(endpoint(listener), room);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_room_the_port_of_a_listener_is_seen_whole() {
        let short = |room| shortened("192.168.100.100:8080".to_owned(), room);
        assert_eq!((short(20).as_str(), short(14).as_str()), ("192.168.100.100:8080", "192.168.…:8080"));
        assert_eq!(shortened("[2001:db8:1:2::15]:443".to_owned(), 12), "[2001:d…:443");
        assert_eq!(shortened("[2001:db8:1:2::15]:443 x4".to_owned(), 12), "[200…:443 x4");
    }

    #[test]
    fn the_owner_gives_way_to_the_address() {
        let with = |wanted| {
            let mut columns = vec![rest(""), left("", BAR), right("queue", 12), left("owner", 20)];
            make_room(&mut columns, 60, wanted);
            (room(&columns, 60), columns[3].width)
        };
        assert_eq!(with(10), (17, Some(20)));
        assert_eq!(with(22), (22, Some(15)));
        assert_eq!(with(50), (29, Some(8)));
    }
}
