//! A text over the panes: headings, which begin at the edge, in bold.

use super::{BOLD, Buffer, PLAIN, Rect, State, put};
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
