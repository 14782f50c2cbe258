//! A text over the panes: headings, which begin at the edge, in bold.

use super::{BOLD, Buffer, PLAIN, Rect, State, put};
use crate::tui::detail;

pub fn draw(state: &State, buffer: &mut Buffer, area: Rect) {
    let Some((_, first)) = &state.over else { return };
    let lines = detail::lines(state);
    let room = detail::height(state.size).min(usize::from(area.height));
    for (y, line) in (area.y..).zip(lines.iter().skip(*first).take(room)) {
        let style = if line.starts_with(|letter: char| letter != ' ') { BOLD } else { PLAIN };
        put(buffer, Rect { x: area.x + 1, y, width: area.width - 2, height: 1 }, line, style);
    }
}
