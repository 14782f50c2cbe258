//! The state as a picture. Text from outside is escaped here, in one place.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::glyphs::{BOLD, DIM, HEAD, PLAIN, REVERSED};
use super::rows::{self, Cell, Column, Table};
use super::state::{Drawn, Pane, State};
use crate::render::layout::wrap;
use crate::value::escape::{ascii_letter, visible};

mod frame;
mod overlay;
mod pane;

/// A terminal that is smaller than this shows one line that says so.
const SMALLEST: (u16, u16) = (60, 15);
/// From this width on, two columns show all panes; from this height on, one does.
const TWO_COLUMNS: u16 = 120;
const TALL: u16 = 36;
/// Rows besides panes: header, verdict (2), notes; and the latest things with their title, and the keys.
const ABOVE: u16 = 4;
const STRIP: u16 = 3;
const BELOW: u16 = 1;

/// Draws the whole screen, and says what it had room for: [`State::drawn`] takes it.
pub fn draw(state: &State, buffer: &mut Buffer) -> Drawn {
    let area = buffer.area;
    let mut drawn = Drawn { rows: [None; 5], over: None };
    buffer.reset();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (columns, rows) = SMALLEST;
        let text = format!("{} x {} is too small: {columns} x {rows} at least, or q to quit", area.width, area.height);
        for (y, line) in (area.y..area.y + area.height).zip(wrap(&text, usize::from(area.width))) {
            put(buffer, Rect { y, height: 1, ..area }, &line, PLAIN);
        }
    } else {
        let above = ABOVE + u16::from(frame::fix(state).is_some());
        frame::above(state, buffer, Rect { height: above, ..area });
        let middle = Rect { y: above, height: area.height - above - BELOW, ..area };
        if state.over.is_some() {
            drawn.over = overlay::draw(state, buffer, middle);
        } else {
            let panes = Rect { height: middle.height - STRIP, ..middle };
            let used = panes_into(state, buffer, panes, &mut drawn.rows);
            let rest = panes.height - used;
            frame::strip(state, buffer, Rect { y: panes.y + used, height: STRIP + rest, ..panes });
        }
        frame::below(state, buffer, Rect { y: area.height - BELOW, height: BELOW, ..area }, drawn.over);
    }
    if !state.setup.glyphs.unicode {
        to_ascii(buffer);
    }
    drawn
}

/// Draws the panes that fit and says how many rows they took.
fn panes_into(state: &State, buffer: &mut Buffer, area: Rect, rows: &mut [Option<usize>; 5]) -> u16 {
    use Pane::{Causes, Ledger, Listeners, Resets, Sockets};
    if area.width >= TWO_COLUMNS {
        let causes = pane::stack(state, buffer, Rect { height: area.height * 2 / 5, ..area }, &[Causes], rows);
        let left = area.width * 3 / 5;
        let lower = Rect { y: area.y + causes, height: area.height - causes, ..area };
        let right = Rect { x: area.x + left + 2, width: area.width - left - 2, ..lower };
        let left = Rect { width: left, ..lower };
        let used = pane::stack(state, buffer, left, &[Ledger, Listeners], rows);
        let below = Rect { y: left.y + used, height: left.height - used, ..left };
        let used = used + overlay::first_cause(state, buffer, below);
        return causes + used.max(pane::stack(state, buffer, right, &[Sockets, Resets], rows));
    }
    let shown: &[Pane] = match state.focus {
        _ if buffer.area.height >= TALL => &Pane::ALL,
        Sockets => &[Causes, Sockets],
        Resets => &[Causes, Resets],
        _ => &[Causes, Ledger, Listeners],
    };
    pane::stack(state, buffer, area, shown, rows)
}

/// A line of text, escaped and cut to the area.
fn put(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    if area.height > 0 {
        buffer.set_stringn(area.x, area.y, visible(text), usize::from(area.width), style);
    }
}

/// The text in the given number of columns: cut with a mark, or filled.
fn fit(text: &str, width: usize, right: bool) -> String {
    let text: Cow<'_, str> = visible(text);
    let columns = text.width();
    if columns <= width {
        let fill = " ".repeat(width - columns);
        return if right { fill + &text } else { text.into_owned() + &fill };
    }
    let mut cut = String::new();
    for letter in text.chars() {
        let letter = letter.encode_utf8(&mut [0; 4]).to_owned();
        if cut.width() + letter.width() + 1 > width {
            break;
        }
        cut.push_str(&letter);
    }
    cut.push('…');
    let fill = " ".repeat(width.saturating_sub(cut.width()));
    cut + &fill
}

/// A terminal that shows ASCII only gets ASCII only, whatever the text was.
fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if let Some(letter) = cell.symbol().chars().next().filter(|_| !cell.symbol().is_ascii()) {
            cell.set_char(ascii_letter(letter));
        }
    }
}
