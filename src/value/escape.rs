//! Text from outside, made harmless for a terminal: process names, units and error texts can hold escape sequences that
//! move the cursor, rename the window or show other text than they are.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every character that a terminal would act on, or not show at all, as a visible escape: `\n`, `\x1b`,
/// `\u{202e}`. Letters of all scripts stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '\n' => write!(shown, "\\n"),
            '\r' => write!(shown, "\\r"),
            '\t' => write!(shown, "\\t"),
            c if is_hidden(c) && u32::from(c) < 0x80 => write!(shown, "\\x{:02x}", u32::from(c)),
            c if is_hidden(c) => write!(shown, "\\u{{{:x}}}", u32::from(c)),
            c => write!(shown, "{c}"),
        };
    }
    Cow::Owned(shown)
}

/// The text for a terminal or file that takes ASCII only: ornaments as what they stand for, and what has no such form as `?`.
pub fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(ascii_letter).collect())
}

/// One character of [`ascii`].
pub fn ascii_letter(letter: char) -> char {
    match letter {
        letter if letter.is_ascii() => letter,
        '\u{a0}' => ' ',
        '·' => '-',
        '…' => '~',
        '≤' => '<',
        _ => '?',
    }
}

/// Control characters (C0, C1, DEL) and what Unicode calls format characters and separators: bidirectional overrides
/// ("Trojan Source"), zero width characters, tags, and line separators.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(u32::from(character),
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5
            | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F
            | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(visible("\x1b[31mred\x1b[0m"), "\\x1b[31mred\\x1b[0m");
        assert_eq!(visible("a\nb\tc\rd\x7f\u{9b}2J"), "a\\nb\\tc\\rd\\x7f\\u{9b}2J");
    }

    #[test]
    fn text_cannot_be_turned_around_or_hidden() {
        assert_eq!(visible("nginx\u{202e}xnign"), "nginx\\u{202e}xnign");
        assert_eq!(visible("a\u{200b}b"), "a\\u{200b}b");
    }

    #[test]
    fn ornaments_have_a_form_in_ascii() {
        assert_eq!(ascii("web-3 · 3 s · größe …"), "web-3 - 3 s - gr??e ~");
        assert!(matches!(ascii("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn letters_stay() {
        assert_eq!(visible("größe-数据库"), "größe-数据库");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_terminal_acts_on_remains(text in ".*") {
            let text = visible(&text).into_owned();
            proptest::prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
