//! A text over the panes: headings, which begin at the edge, in bold.

use super::{BOLD, Buffer, HEAD, PLAIN, Rect, State, put};
use crate::tui::detail;

/// Draws the text that is open; gives its number of lines, and how many are shown.
pub fn draw(state: &State, buffer: &mut Buffer, area: Rect) -> Option<(usize, usize)> {
    let (_, first) = state.over.as_ref()?;
    let lines = detail::lines(state);
    let shown = lines.len().min(usize::from(area.height));
    let first = (*first).min(lines.len() - shown);
    for (y, line) in (area.y..).zip(lines.iter().skip(first).take(shown)) {
        let style = if line.starts_with(|letter: char| letter != ' ') { BOLD } else { PLAIN };
        put(buffer, Rect { x: area.x + 1, y, width: area.width - 2, height: 1 }, line, style);
    }
    Some((lines.len(), shown))
}

/// What to do about the worst cause, where panes leave room; gives the number of rows it took.
pub fn first_cause(state: &State, buffer: &mut Buffer, area: Rect) -> u16 {
    const TITLE: u16 = 1;
    let lines = detail::first(state, area.width.saturating_sub(2));
    let rows = TITLE + u16::try_from(lines.len()).unwrap_or(u16::MAX);
    if lines.is_empty() || rows > area.height {
        return 0;
    }
    let inner = Rect { x: area.x + 2, width: area.width - 2, height: 1, ..area };
    buffer.set_style(inner, HEAD);
    put(buffer, inner, "What to do about the first", HEAD.patch(BOLD));
    for (y, line) in (area.y + TITLE..).zip(&lines) {
        put(buffer, Rect { y, ..inner }, line, PLAIN);
    }
    rows
}
