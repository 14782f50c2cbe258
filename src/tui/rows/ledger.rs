//! Resets and lost connections by reason, over time. Sides on which nothing happened share one line.

use super::{Cell, Table, cell, left, plain, rest, right, title};
use crate::tui::glyphs::{BOLD, DIM, PLAIN};
use crate::tui::history::{Row, Side};
use crate::tui::state::{Pane, State};
use crate::value::words::{rate, thousands};

pub fn table(state: &State, width: usize) -> Table {
    let wide = width >= 90;
    let line = if wide { (width - 68).min(40) } else { 12 };
    let columns = vec![
        left("", 8),
        rest(""),
        right("over time", line),
        right("this tick", 9),
        right("per s", 8),
        right("run", 9),
    ];
    let history = &state.run().history;
    let name = if state.filter.is_empty() { "Resets by reason" } else { "Resets by reason, whole host" };
    let mut rows = Vec::new();
    for side in history.ledger.iter().filter(|side| !side.is_quiet()) {
        of_side(&mut rows, state, side, line);
    }
    let named = |test: &dyn Fn(&&Side) -> bool| {
        history.ledger.iter().filter(test).map(|side| side.name).collect::<Vec<_>>().join(", ")
    };
    let none = named(&|side| side.is_quiet() && side.observed);
    let unseen = named(&|side| side.is_quiet() && !side.observed);
    let rest = [("none so far: ", none), ("not visible here: ", unseen)];
    let rest: Vec<_> =
        rest.into_iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| what.to_owned() + &names).collect();
    Table {
        title: title(state, Pane::Ledger, name),
        columns,
        rows,
        notes: if rest.is_empty() { rest } else { vec![rest.join("; ")] },
    }
}

fn of_side(rows: &mut Vec<Vec<Cell>>, state: &State, side: &Side, line: usize) {
    let mut lines: Vec<&Row> = side.lines.iter().filter(|row| row.run > 0).collect();
    match state.sorted[Pane::Ledger as usize] {
        0 => lines.sort_by_key(|row| std::cmp::Reverse(row.run)),
        1 => lines.sort_by(|a, b| b.per_s.total_cmp(&a.per_s)),
        _ => {}
    }
    // What no reason is known for comes last, and is never hidden.
    if side.unexplained.run > 0 {
        lines.push(&side.unexplained);
    }
    let row = |name: &str, row: &Row, style| {
        let now = if row.now > 0 { BOLD } else { DIM };
        let known = side.observed;
        vec![
            plain(name),
            cell(row.label.clone(), style),
            plain(state.setup.glyphs.sparkline(row.rates.iter().copied(), line)),
            cell(if known { thousands(row.now) } else { "?".to_owned() }, now),
            cell(if known { rate(row.per_s) } else { "?".to_owned() }, now),
            plain(thousands(row.run)),
        ]
    };
    // A single line that is the whole side says it all.
    if let [only] = lines[..]
        && only.run == side.total.run
    {
        return rows.push(row(side.name, only, PLAIN));
    }
    rows.push(row(side.name, &side.total, PLAIN));
    rows.extend(lines.into_iter().map(|line| row("", line, PLAIN)));
}
