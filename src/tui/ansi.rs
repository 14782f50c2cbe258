//! The difference of two pictures as bytes for a terminal: cursor movements and SGR attributes of ECMA-48, which every
//! terminal since the VT100 understands.

use std::fmt::Write as _;

use ratatui_core::buffer::Buffer;
use ratatui_core::style::{Color, Modifier};

/// What turns `previous` into `next`. Empty if nothing differs.
pub fn difference(previous: &Buffer, next: &Buffer) -> String {
    let mut out = String::new();
    let mut expected = None;
    let mut attributes = None;
    for (x, y, cell) in previous.diff_iter(next) {
        if expected != Some((x, y)) {
            let _ = write!(out, "\x1b[{};{}H", y + 1, x + 1);
        }
        let wanted = (cell.fg, cell.modifier);
        if attributes != Some(wanted) {
            sgr(&mut out, wanted);
            attributes = Some(wanted);
        }
        out.push_str(cell.symbol());
        // What is wider than a column, or of doubtful width, is not counted on.
        expected = (cell.symbol().len() == 1 || is_block(cell.symbol())).then_some((x + 1, y));
    }
    if !out.is_empty() {
        out.push_str("\x1b[0m");
    }
    out
}

/// Everything, onto an empty screen.
pub fn whole(next: &Buffer) -> String {
    format!("\x1b[0m\x1b[2J{}", difference(&Buffer::empty(next.area), next))
}

fn is_block(symbol: &str) -> bool {
    symbol.chars().all(|symbol| ('\u{2580}'..='\u{259f}').contains(&symbol))
}

fn sgr(out: &mut String, (colour, modifier): (Color, Modifier)) {
    out.push_str("\x1b[0");
    for (bit, code) in [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::UNDERLINED, 4), (Modifier::REVERSED, 7)] {
        if modifier.contains(bit) {
            let _ = write!(out, ";{code}");
        }
    }
    match colour {
        Color::Red => out.push_str(";31"),
        Color::Green => out.push_str(";32"),
        Color::Yellow => out.push_str(";33"),
        Color::LightRed => out.push_str(";91"),
        _ => {}
    }
    out.push('m');
}

#[cfg(test)]
mod tests {
    use ratatui_core::layout::Rect;

    use super::*;

    fn picture(text: &str) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 10, 2));
        buffer.set_string(0, 0, text, super::super::glyphs::PLAIN);
        buffer
    }

    #[test]
    fn only_what_changed_is_written() {
        assert_eq!(difference(&picture("rate 1"), &picture("rate 1")), "");
        assert_eq!(difference(&picture("rate 1"), &picture("rate 2")), "\x1b[1;6H\x1b[0m2\x1b[0m");
    }

    #[test]
    fn a_whole_picture_starts_on_an_empty_screen() {
        assert_eq!(whole(&picture("ok")), "\x1b[0m\x1b[2J\x1b[1;1H\x1b[0mok\x1b[0m");
    }
}
