//! The reset ledger as a table: each side's total, what accounts for it, and the remainder.

use std::time::Duration;

use comfy_table::Table;

use super::grid;
use super::layout::Page;
use crate::evidence::ledger::{Account, Basis, Ledger, Line};
use crate::observation::delta::per_second;
use crate::value::words::{rate, seconds, thousands};

/// Adds the table.
pub fn write(page: &mut Page, ledger: &Ledger, window: Duration) {
    let sides = [
        ("sent", &ledger.sent),
        ("received", &ledger.received),
        ("firewall", &ledger.firewall),
        ("lost", &ledger.dropped),
    ];
    let mut table = grid::new(page.width());
    let over = format!("in {}", seconds(window));
    table.set_header(grid::header(["Resets", over.as_str(), "count", "per s", "known from"], [2, 3]));
    for (name, account) in sides {
        side(&mut table, name, account, window);
    }
    grid::write(page, &table);
}

fn side(table: &mut Table, name: &str, account: &Account, window: Duration) {
    let total = match &account.total {
        Ok(total) => *total,
        Err(missing) => {
            let why = grid::text(&missing.reason);
            table.add_row([grid::text(name), grid::text(""), grid::number("?"), grid::text(""), why]);
            return;
        }
    };
    // A single line that is the whole side says it all.
    if let [line] = &account.lines[..]
        && line.count == total
    {
        return row(table, name, &line.label, total, window, &known(line));
    }
    let about = if account.basis == Basis::Inferred { "estimate" } else { "counted by the kernel" };
    row(table, name, "in total", total, window, about);
    for line in sorted(&account.lines) {
        row(table, "", &line.label, line.count, window, &known(line));
    }
    if let Some(excess) = account.excess() {
        row(table, "", "not in the total", excess, window, "events and counter are read a moment apart");
    } else if let Some(rest) = account.unexplained() {
        row(table, "", "unexplained", rest, window, "");
    }
}

fn sorted(lines: &[Line]) -> Vec<&Line> {
    let mut lines: Vec<_> = lines.iter().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.count));
    lines
}

fn known(line: &Line) -> String {
    match line.basis {
        Basis::Measured => line.known_from.clone(),
        Basis::Deduced => format!("{} (deduced)", line.known_from),
        Basis::Inferred => format!("{} (inferred)", line.known_from),
    }
}

fn row(table: &mut Table, side: &str, what: &str, count: u64, window: Duration, known_from: &str) {
    table.add_row([
        grid::text(side),
        grid::text(what),
        grid::number(&thousands(count)),
        grid::number(&rate(per_second(count, window))),
        grid::text(known_from),
    ]);
}
