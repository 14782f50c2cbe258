//! Panes one below the other, each with a title line, its rows, and the chosen row where the keys go.

use super::{BOLD, Buffer, Cell, Column, DIM, HEAD, Pane, REVERSED, Rect, State, Table, fit, put, rows, wrap};

/// Between two columns.
const GAP: usize = 1;
/// For the mark of the chosen row.
const MARK: u16 = 2;
/// Rows that a pane keeps, its title included, before another one gets more.
const fn floor(pane: Pane) -> u16 {
    match pane {
        Pane::Causes | Pane::Listeners => 5,
        Pane::Ledger => 6,
        Pane::Sockets => 4,
        Pane::Resets => 4,
    }
}

/// Draws the panes into the area and says how many rows they took.
pub fn stack(state: &State, buffer: &mut Buffer, area: Rect, panes: &[Pane]) -> u16 {
    let width = usize::from(area.width - MARK);
    let tables: Vec<(Pane, Table)> = panes.iter().map(|pane| (*pane, rows::of(state, *pane, width))).collect();
    let wanted: Vec<u16> = tables.iter().map(|(_, table)| wanted(table, width)).collect();
    let heights = share(area.height, panes, &wanted);
    let mut y = area.y;
    for ((pane, table), height) in tables.iter().zip(heights) {
        draw(state, buffer, Rect { y, height, ..area }, *pane, table);
        y += height;
    }
    y - area.y
}

/// Title, rows, note, and an empty row that sets it apart.
fn wanted(table: &Table, width: usize) -> u16 {
    let note = if table.note.is_empty() { 0 } else { wrap(&table.note, width).len() };
    u16::try_from(2 + (table.rows.len() + note).max(1)).unwrap_or(u16::MAX)
}

/// Each gets what it wants up to its floor, then all that is left from the first on.
fn share(height: u16, panes: &[Pane], wanted: &[u16]) -> Vec<u16> {
    let mut heights: Vec<u16> = Vec::new();
    let mut left = height;
    for (pane, wanted) in panes.iter().zip(wanted) {
        let own = floor(*pane).min(*wanted).min(left);
        heights.push(own);
        left -= own;
    }
    for (own, wanted) in heights.iter_mut().zip(wanted) {
        let more = wanted.saturating_sub(*own).min(left);
        *own += more;
        left -= more;
    }
    heights
}

fn draw(state: &State, buffer: &mut Buffer, area: Rect, pane: Pane, table: &Table) {
    if area.height == 0 {
        return;
    }
    let focused = state.focus == pane;
    let widths = widths(&table.columns, usize::from(area.width - MARK));
    let inner = Rect { x: area.x + MARK, width: area.width - MARK, ..area };
    let note = if table.note.is_empty() { Vec::new() } else { wrap(&table.note, usize::from(inner.width)) };
    let count = table.rows.len();
    let room = usize::from(area.height - 1);
    // The note has its place unless the rows need it.
    let shown = count.min(room.saturating_sub(note.len()).max(1)).min(room);
    let chosen = state.chosen(pane, count);
    let first = if chosen < shown { 0 } else { chosen + 1 - shown };

    let heads: Vec<Cell> =
        table.columns.iter().map(|column| Cell { text: column.head.to_owned(), style: HEAD }).collect();
    buffer.set_style(Rect { height: 1, ..inner }, HEAD);
    cells(buffer, inner, &table.columns, &widths, &heads);
    let part = if shown < count { format!("  {}-{} of {count}", first + 1, first + shown) } else { String::new() };
    put(buffer, Rect { height: 1, ..area }, if focused { "> " } else { "  " }, BOLD);
    let style = if focused { HEAD.patch(REVERSED) } else { HEAD.patch(BOLD) };
    put(buffer, Rect { height: 1, ..inner }, &table.title, style);
    let after = u16::try_from(table.title.chars().count()).unwrap_or(u16::MAX).min(inner.width);
    put(buffer, Rect { x: inner.x + after, width: inner.width - after, height: 1, ..inner }, &part, HEAD);

    let mut y = area.y + 1;
    for (index, row) in table.rows.iter().enumerate().skip(first).take(shown) {
        let line = Rect { y, height: 1, ..inner };
        cells(buffer, line, &table.columns, &widths, row);
        if focused && index == chosen && (pane == Pane::Causes || count > shown) {
            put(buffer, Rect { x: area.x, width: MARK, ..line }, ">", BOLD);
        }
        y += 1;
    }
    for line in note {
        if y < area.y + area.height {
            put(buffer, Rect { y, height: 1, ..inner }, &line, DIM);
        }
        y += 1;
    }
}

fn widths(columns: &[Column], width: usize) -> Vec<usize> {
    let fixed: usize = columns.iter().filter_map(|column| column.width).sum();
    let rest = width.saturating_sub(fixed + GAP * columns.len().saturating_sub(1));
    columns.iter().map(|column| column.width.unwrap_or(rest)).collect()
}

fn cells(buffer: &mut Buffer, area: Rect, columns: &[Column], widths: &[usize], row: &[Cell]) {
    let mut x = area.x;
    for ((column, width), cell) in columns.iter().zip(widths).zip(row) {
        let left = (area.x + area.width).saturating_sub(x);
        put(buffer, Rect { x, width: left, ..area }, &fit(&cell.text, *width, column.right), cell.style);
        x = x.saturating_add(u16::try_from(width + GAP).unwrap_or(u16::MAX));
    }
}
