//! Panes one below the other, each with a title line, its rows, and the chosen row where the keys go.

use super::{BOLD, Buffer, Cell, Column, DIM, HEAD, Pane, REVERSED, Rect, State, Table, fit, put, rows, wrap};

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

/// Draws the panes into the area and says how many rows of the screen they took; notes how many their contents have.
pub fn stack(state: &State, buffer: &mut Buffer, area: Rect, panes: &[Pane], rows: &mut [Option<usize>; 5]) -> u16 {
    let width = usize::from(area.width - MARK);
    let tables: Vec<(Pane, Table)> = panes.iter().map(|pane| (*pane, super::rows::of(state, *pane, width))).collect();
    for (pane, table) in &tables {
        rows[*pane as usize] = Some(table.rows.len());
    }
    let wanted: Vec<u16> = tables.iter().map(|(_, table)| wanted(table, width)).collect();
    let heights = share(area.height, panes, &wanted);
    let mut y = area.y;
    for ((pane, table), height) in tables.iter().zip(heights) {
        draw(state, buffer, Rect { y, height, ..area }, *pane, table);
        y += height;
    }
    y - area.y
}

fn notes(table: &Table, width: usize) -> Vec<String> {
    let indented = |note: &String| {
        let text = note.trim_start();
        let indent = note.len() - text.len();
        wrap(text, width.saturating_sub(indent)).into_iter().map(move |line| " ".repeat(indent) + &line)
    };
    table.notes.iter().flat_map(indented).collect()
}

/// Title, rows and note.
fn wanted(table: &Table, width: usize) -> u16 {
    u16::try_from(1 + (table.rows.len() + notes(table, width).len()).max(1)).unwrap_or(u16::MAX)
}

/// Each gets what it wants up to its floor; what is left goes round, row by row, to the first pane last, because it
/// has the most important rows on top; and then, as long as it lasts, each gets an
/// empty row that sets it apart.
fn share(height: u16, panes: &[Pane], wanted: &[u16]) -> Vec<u16> {
    let mut left = height;
    let mut heights: Vec<u16> = Vec::new();
    for (pane, wanted) in panes.iter().zip(wanted) {
        let own = floor(*pane).min(*wanted).min(left);
        heights.push(own);
        left -= own;
    }
    let short = |heights: &[u16]| heights.iter().zip(wanted).any(|(own, wanted)| own < wanted);
    while left > 0 && short(&heights) {
        for (own, wanted) in heights.iter_mut().zip(wanted).rev() {
            let more = u16::from(*own < *wanted).min(left);
            *own += more;
            left -= more;
        }
    }
    for own in &mut heights {
        let more = left.min(1);
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
    let note = notes(table, usize::from(inner.width));
    let count = table.rows.len();
    let room = usize::from(area.height - 1);
    // The note has its place unless the rows need it.
    let shown = count.min(room.saturating_sub(note.len()).max(1)).min(room);
    let chosen = state.chosen(pane, count);
    let first = if chosen < shown { 0 } else { chosen + 1 - shown };

    let heads: Vec<Cell> =
        table.columns.iter().map(|column| Cell { text: column.head.to_owned(), style: HEAD }).collect();
    buffer.set_style(Rect { height: 1, ..inner }, HEAD);
    let part = if shown < count { format!("  {}-{} of {count}", first + 1, first + shown) } else { String::new() };
    let after_title = table.title.chars().count() + part.chars().count();
    cells(buffer, inner, &table.columns, &widths, &behind(heads, &widths, after_title));
    put(buffer, Rect { height: 1, ..area }, if focused { "> " } else { "  " }, BOLD);
    let style = if focused { HEAD.patch(REVERSED) } else { HEAD.patch(BOLD) };
    put(buffer, Rect { height: 1, ..inner }, &table.title, style);
    let after = u16::try_from(table.title.chars().count()).unwrap_or(u16::MAX).min(inner.width);
    put(buffer, Rect { x: inner.x + after, width: inner.width - after, height: 1, ..inner }, &part, HEAD);

    let mut y = area.y + 1;
    for (index, row) in table.rows.iter().enumerate().skip(first).take(shown) {
        let line = Rect { y, height: 1, ..inner };
        cells(buffer, line, &table.columns, &widths, row);
        if index == chosen && (pane == Pane::Causes || focused && count > shown) {
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

/// The heads of columns that begin behind the title: half a word is worse than none.
fn behind(mut heads: Vec<Cell>, widths: &[usize], title: usize) -> Vec<Cell> {
    let mut end = 0;
    for (head, width) in heads.iter_mut().zip(widths) {
        end += width;
        // Where the column is aligned to the right, its head may begin behind the title although the column does not.
        if end.saturating_sub(head.text.chars().count()) <= title {
            head.text.clear();
        }
        end += rows::GAP;
    }
    heads
}

fn widths(columns: &[Column], width: usize) -> Vec<usize> {
    let rest = rows::room(columns, width);
    columns.iter().map(|column| column.width.unwrap_or(rest)).collect()
}

fn cells(buffer: &mut Buffer, area: Rect, columns: &[Column], widths: &[usize], row: &[Cell]) {
    let mut x = area.x;
    for ((column, width), cell) in columns.iter().zip(widths).zip(row) {
        let left = (area.x + area.width).saturating_sub(x);
        put(buffer, Rect { x, width: left, ..area }, &fit(&cell.text, *width, column.right), cell.style);
        x = x.saturating_add(u16::try_from(width + rows::GAP).unwrap_or(u16::MAX));
    }
}
