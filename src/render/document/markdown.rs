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

/// What is no markup where it stands is left as it is: who reads the text before it is rendered wants to paste from it.
fn write_word(dest: &mut impl Write, word: &str, first: bool) -> fmt::Result {
    let letters: Vec<char> = word.chars().collect();
    let at = |index: Option<usize>| index.and_then(|index| letters.get(index)).copied();
    // `1. ` and `1) ` begin a list.
    let digits = letters.iter().take_while(|letter| letter.is_ascii_digit()).count();
    let numbers = first && digits > 0 && digits + 1 == letters.len();
    for (index, letter) in letters.iter().enumerate() {
        let begins = first && index == 0;
        let inside = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        let harmless = match letter {
            ',' | ';' | '%' | '/' | '(' | '\'' | '?' | '"' | '{' | '}' => true,
            // A list, a heading, a quotation, a definition, where a line begins with them.
            '-' | '+' | '=' | '>' | ':' => !begins,
            '.' | ')' => !(numbers && index == digits),
            // Within a word it emphasizes nothing.
            '_' => inside(at(index.checked_sub(1))) && inside(at(index.checked_add(1))),
            letter => !letter.is_ascii_punctuation(),
        };
        if !harmless {
            dest.write_char('\\')?;
        }
        dest.write_char(*letter)?;
    }
    Ok(())
}

/// A text of one line as code. What may be pasted is to be that text, also where nobody renders it.
pub fn code(text: &str) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1));
    match text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) {
        true => format!("{fence} {text} {fence}"),
        false => format!("{fence}{text}{fence}"),
    }
}

/// Lines as they are, in a fence that is longer than any in them.
pub fn fenced(lines: &str) -> String {
    let longest = lines.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1).max(3));
    format!("{fence}\n{lines}\n{fence}")
}
