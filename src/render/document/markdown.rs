//! Text as Markdown that shows it as it is (CommonMark 0.31, and what GitHub and GitLab add: tables, autolinks, mentions).

use std::fmt::{self, Write};

use askama::filters::Escaper;

/// The escaper of the templates. A text must not be split: what begins a line in Markdown is looked for at its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Escaped;

impl Escaper for Escaped {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        for (index, word) in text.split(' ').enumerate() {
            if index > 0 {
                dest.write_char(' ')?;
            }
            match word {
                // Spaces at the beginning may make it code.
                "" if index == 0 && !text.is_empty() => dest.write_str("&#32;")?,
                word if is_reference(word) => write!(dest, "`{word}`")?,
                word => write_word(&mut dest, word, index == 0)?,
            }
        }
        Ok(())
    }
}

/// What becomes a link, or calls somebody, wherever it stands, but not as code: `getty@tty1.service`, `#12`, `https://...`.
fn is_reference(word: &str) -> bool {
    let refers = word.contains(['@', '#', '!', '~', '$']) || word.contains("://") || word.contains("www.");
    // In code a backslash is itself, so that these could not be escaped.
    refers && !word.contains(['`', '|'])
}

fn write_word(dest: &mut impl Write, word: &str, first: bool) -> fmt::Result {
    // `- ` and `1. ` begin a list.
    let digits = word.chars().take_while(char::is_ascii_digit).count();
    let harmless = |index: usize, letter: char| match letter {
        ',' | ':' | ';' | '%' | '/' | '(' | '\'' | '?' | '"' => true,
        '-' => !first || index > 0,
        '.' | ')' => !first || index != digits,
        letter => !letter.is_ascii_punctuation(),
    };
    for (index, letter) in word.chars().enumerate() {
        if !harmless(index, letter) {
            dest.write_char('\\')?;
        }
        dest.write_char(letter)?;
    }
    Ok(())
}

/// Lines as they are, in a fence that is longer than any in them.
pub fn fenced(lines: &str) -> String {
    let longest = lines.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1).max(3));
    format!("{fence}\n{lines}\n{fence}")
}
