//! How things look: bars and lines of rates in Unicode or ASCII, and colours where they are wanted. A colour says nothing that
//! a word beside it does not say.

use ratatui::style::{Color, Modifier, Style};

use crate::cause::Severity;
use crate::diagnosis::Status;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyphs {
    pub colour: bool,
    pub unicode: bool,
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

impl Glyphs {
    /// The latest rates, one column each, the highest of those shown as a full block. Nothing and little differ.
    pub fn sparkline(self, rates: impl DoubleEndedIterator<Item = f64>, width: usize) -> String {
        let mut rates: Vec<f64> = rates.rev().take(width).collect();
        rates.reverse();
        let highest = rates.iter().copied().fold(0.0, f64::max);
        let (levels, none) = if self.unicode { (BLOCKS, '·') } else { (ASCII, ' ') };
        let mut line: String = std::iter::repeat_n(' ', width.saturating_sub(rates.len())).collect();
        line.extend(rates.into_iter().map(|rate| match rate / highest {
            share if rate <= 0.0 || !share.is_finite() => none,
            share => levels[((share * 8.0).ceil() as usize).clamp(1, 8) - 1],
        }));
        line
    }

    /// A bar of this width. Something is never shown as nothing, nor almost full as full.
    pub fn bar(self, part: u64, whole: u64, width: usize) -> String {
        let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let mut filled = (share * width as f64).round().clamp(0.0, width as f64) as usize;
        if part > 0 {
            filled = filled.max(1);
        }
        if part < whole {
            filled = filled.min(width.saturating_sub(1));
        }
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", "-") };
        format!("{}{}", full.repeat(filled), empty.repeat(width - filled))
    }

    fn coloured(self, colour: Color) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if self.colour { bold.fg(colour) } else { bold }
    }

    pub fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Critical => self.coloured(Color::LightRed),
            Severity::Warning => self.coloured(Color::Yellow),
            Severity::Info => Style::new(),
        }
    }

    pub fn status(self, status: Status) -> Style {
        match status {
            Status::Ok => self.coloured(Color::Green),
            Status::Critical => self.coloured(Color::LightRed),
            Status::Warning | Status::Unknown => self.coloured(Color::Yellow),
        }
    }
}

pub const PLAIN: Style = Style::new();
pub const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub const HEAD: Style = Style::new().add_modifier(Modifier::UNDERLINED);
pub const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Glyphs = Glyphs { colour: false, unicode: true };
    const PLAINEST: Glyphs = Glyphs { colour: false, unicode: false };

    #[test]
    fn a_line_of_rates_ends_with_the_latest() {
        assert_eq!(UNICODE.sparkline([0.0, 0.1, 4.0, 8.0].into_iter(), 6), "  ·▁▄█");
        assert_eq!(UNICODE.sparkline([9.0, 1.0, 1.0].into_iter(), 2), "██");
        assert_eq!(PLAINEST.sparkline([0.0, 0.1, 8.0].into_iter(), 4), "  _#");
        assert_eq!(UNICODE.sparkline([f64::NAN, f64::INFINITY].into_iter(), 2).chars().count(), 2);
    }

    #[test]
    fn a_bar_shows_little_and_almost_full_as_what_they_are() {
        assert_eq!(UNICODE.bar(1, 4096, 5), "█░░░░");
        assert_eq!(UNICODE.bar(4095, 4096, 5), "████░");
        assert_eq!(UNICODE.bar(512, 511, 5), "█████");
        assert_eq!(PLAINEST.bar(0, 0, 5), "-----");
    }
}
