//! Tables without rules: they survive a log, a mail and a narrow terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::layout::Page;
use crate::value::escape::visible;

/// An empty table that fits the width.
pub fn new(width: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table
}

/// Header cells; the columns at `right` are aligned like the numbers below them.
pub fn header<const N: usize, const R: usize>(names: [&str; N], right: [usize; R]) -> Vec<Cell> {
    names
        .iter()
        .enumerate()
        .map(|(index, name)| match right.contains(&index) {
            true => number(name),
            false => Cell::new(name),
        })
        .collect()
}

/// A cell of text that may come from outside.
pub fn text(text: &str) -> Cell {
    Cell::new(visible(text))
}

/// A cell that is aligned to the right.
pub fn number(text: &str) -> Cell {
    Cell::new(visible(text)).set_alignment(CellAlignment::Right)
}

/// Adds the table to the page, header first, columns two spaces apart.
pub fn write(page: &mut Page, table: &Table) {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines = table.lines();
    if let Some(header) = lines.next() {
        page.heading(header.trim_end());
    }
    for line in lines {
        // No-break spaces kept parts of a cell on one line.
        page.line(&line.replace('\u{a0}', " "));
    }
}
