//! What stands in each pane, as rows of cells: one file per pane. Where on the screen is the view's business.

use std::time::Duration;

use ratatui::style::Style;

use super::glyphs::PLAIN;
use super::state::{Pane, State};
use crate::value::Moment;
use crate::value::words::seconds;

mod causes;
mod ledger;
mod listeners;
mod resets;
mod sockets;

pub use causes::state_word;

/// A pane's content for some width.
#[derive(Debug, Default)]
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// Instead of rows, or below them; each begins a line.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub head: &'static str,
    /// `None`: all that is left.
    pub width: Option<usize>,
    pub right: bool,
}

#[derive(Debug, Clone)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

fn left(head: &'static str, width: usize) -> Column {
    Column { head, width: Some(width), right: false }
}

fn right(head: &'static str, width: usize) -> Column {
    Column { head, width: Some(width), right: true }
}

fn rest(head: &'static str) -> Column {
    Column { head, width: None, right: false }
}

fn cell(text: impl Into<String>, style: Style) -> Cell {
    Cell { text: text.into(), style }
}

fn plain(text: impl Into<String>) -> Cell {
    cell(text, PLAIN)
}

/// The content of a pane of that many columns.
pub fn of(state: &State, pane: Pane, width: usize) -> Table {
    match pane {
        Pane::Causes => causes::table(state, width),
        Pane::Ledger => ledger::table(state, width),
        Pane::Listeners => listeners::table(state, width),
        Pane::Sockets => sockets::table(state),
        Pane::Resets => resets::table(state, width),
    }
}

/// The title of a pane with its order, where it is not the usual one.
fn title(state: &State, pane: Pane, name: &str) -> String {
    let number = pane as usize + 1;
    match (state.sorted[pane as usize], pane.orders()) {
        (sorted @ 1.., orders) => format!("{number} {name} by {}", orders.get(sorted).copied().unwrap_or_default()),
        _ => format!("{number} {name}"),
    }
}

/// Between two columns.
pub const GAP: usize = 1;

/// Columns that are left for the one column without a width.
pub fn room(columns: &[Column], width: usize) -> usize {
    let fixed: usize = columns.iter().filter_map(|column| column.width).sum();
    width.saturating_sub(fixed + GAP * columns.len().saturating_sub(1))
}

/// How long ago, in whole seconds: tenths that run are noise.
pub fn ago(now: Moment, then: Moment) -> String {
    seconds(Duration::from_secs(now.mono.saturating_sub(then.mono).as_secs()))
}
