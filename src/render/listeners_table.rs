//! Listeners with their accept queues: those that matter, or all.

use comfy_table::Cell;

use super::grid;
use super::layout::Page;
use crate::diagnosis::ListenerRow;
use crate::value::words::thousands;

/// Adds the table if there is anything to show.
/// `left_out`: further ones that the diagnosis does not name.
pub fn write(page: &mut Page, listeners: &[ListenerRow], left_out: u64) {
    if listeners.is_empty() {
        return;
    }
    page.gap();
    let mut table = grid::new(page.width());
    table.set_header(grid::header(["Listener", "queue", "lost", "limit set by", "owner"], [1, 2]));
    for row in listeners {
        table.add_row(cells(row));
    }
    grid::write(page, &table);
    if left_out > 0 {
        page.line(&format!("{} more listening, none of them fuller", thousands(left_out)));
    }
}

fn cells(row: &ListenerRow) -> Vec<Cell> {
    let endpoint = std::net::SocketAddr::new(row.address, row.port);
    let endpoint = match row.sockets {
        0 | 1 => endpoint.to_string(),
        n => format!("{endpoint} ({n} sockets)"),
    };
    let full = if row.full_samples > 0 { " full" } else { "     " };
    // The kernel admits one connection more than the limit, so 6/5 is right.
    let queue =
        format!("{}/{}{full}", thousands(row.recv_q.into()), thousands(row.backlog.into())).replace(' ', "\u{a0}");
    let lost = match row.drops {
        Some(0) => "0".to_owned(),
        // sk_drops counts packets of every kind, over a slightly longer time than the counters.
        Some(drops) => format!("at\u{a0}most\u{a0}{}", thousands(drops)),
        None => "?".to_owned(),
    };
    let limit = row.binding_limit.map_or("?", |limit| limit.name());
    vec![Cell::new(endpoint), grid::number(&queue), grid::number(&lost), Cell::new(limit), grid::text(&owner(row))]
}

fn owner(row: &ListenerRow) -> String {
    match &row.processes[..] {
        [] => "not visible".to_owned(),
        [process] => format!("{} {}", process.name, process.pid),
        [process, more @ ..] => format!("{} {} and {} more", process.name, process.pid, more.len()),
    }
}
