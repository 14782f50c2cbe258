//! Lines of a page: wrapped text with hanging indents, and commands that can still be pasted.

use unicode_width::UnicodeWidthStr;

use crate::value::escape::visible;
use crate::value::shell::ShellCommand;

/// Prose wider than this is hard to read, however wide the terminal is.
const MAX_PROSE: usize = 110;
const MIN_WIDTH: usize = 40;

/// Colours of a word. Each says what the word says, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Red,
    Yellow,
    Green,
    Bold,
    Dim,
}

/// A page under construction.
#[derive(Debug)]
pub struct Page {
    width: usize,
    colour: bool,
    text: String,
}

impl Page {
    /// A page of that many columns (at least 40), with or without colour.
    pub fn new(width: u16, colour: bool) -> Self {
        Self { width: usize::from(width).max(MIN_WIDTH), colour, text: String::new() }
    }

    /// Columns of the page.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Columns that prose uses.
    pub fn prose_width(&self) -> usize {
        self.width.min(MAX_PROSE)
    }

    /// The text, ending with one newline.
    pub fn finish(self) -> String {
        format!("{}\n", self.text.trim_end())
    }

    /// An empty line, except at the start and after another one.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// One line as it is; trailing space is cut. The caller has escaped what came from outside.
    pub fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        let heading = self.paint(text, Paint::Bold);
        self.line(&heading);
    }

    /// Text after a label; further lines are indented to where the text began. The text is escaped.
    pub fn field(&mut self, label: &str, indent: usize, text: &str) {
        self.painted_field(label, None, indent, text);
    }

    /// As [`Page::field`], with a coloured label.
    pub fn painted_field(&mut self, label: &str, paint: Option<Paint>, indent: usize, text: &str) {
        let rest = self.prose_width().saturating_sub(indent);
        let pad = " ".repeat(indent);
        let fill = " ".repeat(indent.saturating_sub(label.width()));
        let label = paint.map_or_else(|| label.to_owned(), |paint| self.paint(label, paint));
        for (index, line) in wrap(&visible(text), rest).iter().enumerate() {
            let line = line.replace('\u{a0}', " ");
            if index == 0 {
                self.line(&format!("{label}{fill}{line}"));
            } else {
                self.line(&format!("{pad}{line}"));
            }
        }
    }

    /// A command to be pasted; continued with `\\` between two words if it does not fit.
    pub fn shell(&mut self, indent: usize, command: &ShellCommand) {
        // Its words hold no hidden character.
        let words = command.quoted_words();
        self.indented(indent, &continued(words.iter().map(String::as_str), self.width.saturating_sub(indent)));
    }

    /// A line of configuration or of source. One that does not fit goes on, further to the right, behind a space.
    pub fn setting(&mut self, indent: usize, line: &str) {
        const HANGING: usize = 4;
        let line = visible(line);
        let room = self.width.saturating_sub(indent);
        if line.width() <= room {
            return self.indented(indent, &[line.into_owned()]);
        }
        let mut lines = wrap(&line, room.saturating_sub(HANGING)).into_iter();
        let first = lines.next();
        self.indented(indent, first.as_slice());
        self.indented(indent + HANGING, &lines.collect::<Vec<_>>());
    }

    /// A command of the documentation: a comment behind it goes to a line of its own if it does not fit.
    pub fn example(&mut self, indent: usize, command: &str) {
        let room = self.width.saturating_sub(indent);
        let lines = match command.split_once("    # ") {
            _ if command.width() <= room => vec![command.to_owned()],
            Some((line, comment)) => vec![format!("# {comment}"), line.to_owned()],
            None => continued(shell_words(command).into_iter(), room),
        };
        self.indented(indent, &lines);
    }

    fn indented(&mut self, indent: usize, lines: &[String]) {
        for line in lines {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    /// The word in colour where colour is wanted.
    pub fn paint(&self, word: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Red => "1;31",
            Paint::Yellow => "1;33",
            Paint::Green => "1;32",
            Paint::Bold => "1",
            Paint::Dim => "2",
        };
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// The text in one line of at most `width` columns, cut at a word with `…` where it does not fit.
pub fn shorten(text: &str, width: usize) -> String {
    match &wrap(text, width)[..] {
        [whole] => whole.clone(),
        _ => {
            let first = wrap(text, width.saturating_sub(2)).into_iter().next().unwrap_or_default();
            format!("{} …", first.trim_end_matches([',', ':', ';']))
        }
    }
}

/// Breaks text at spaces, but not at no-break spaces, into lines of at most `width` columns; a word that is longer is cut. Never empty.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(10);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        for piece in pieces(word, width) {
            let columns = piece.width();
            let space = usize::from(used > 0);
            if used + space + columns > width {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(piece);
                used += columns;
            }
        }
    }
    lines
}

/// A word in pieces of at most `width` columns.
fn pieces(word: &str, width: usize) -> Vec<&str> {
    if word.width() <= width {
        return vec![word];
    }
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut used = 0;
    for (index, character) in word.char_indices() {
        let columns = word.get(index..index + character.len_utf8()).map_or(1, UnicodeWidthStr::width);
        if used + columns > width {
            pieces.extend(word.get(start..index));
            start = index;
            used = 0;
        }
        used += columns;
    }
    pieces.extend(word.get(start..));
    pieces
}

/// The words on lines of `room` columns, each but the last with the mark that the shell joins it to the next by. A line ends
/// before an operator where what belongs together then fits.
fn continued<'a>(words: impl Iterator<Item = &'a str>, room: usize) -> Vec<String> {
    const MARK: &str = " \\";
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for word in words {
        match parts.last_mut() {
            Some(part) if !matches!(word, "|" | "&&" | ">") => part.push(word),
            _ => parts.push(vec![word]),
        }
    }
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        let mark = |last: bool| if last { 0 } else { MARK.len() };
        let width = part.join(" ").width() + mark(parts.peek().is_none());
        let whole = 2 + width <= room;
        let mut begins = whole && current.width() + 1 + width > room;
        let mut words = part.into_iter().peekable();
        while let Some(word) = words.next() {
            let mark = mark(words.peek().is_none() && parts.peek().is_none());
            begins |= current.width() + 1 + word.width() + mark > room;
            if begins && !current.trim_end().is_empty() {
                lines.push(format!("{current}{MARK}"));
                current = "  ".to_owned();
            } else if !current.is_empty() {
                current.push(' ');
            }
            begins = false;
            current.push_str(word);
        }
    }
    lines.push(current);
    lines
}

/// Splits at spaces outside quotes, so that a continuation never lands inside one.
fn shell_words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut start = 0;
    for (index, character) in command.char_indices() {
        match (quote, character) {
            (None, ' ') => {
                words.extend(command.get(start..index).filter(|word| !word.is_empty()));
                start = index + 1;
            }
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    words.extend(command.get(start..).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("one two three four", 10), ["one two", "three four"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn a_word_longer_than_the_line_is_cut_and_loses_nothing() {
        assert_eq!(wrap("abcdefghijklmno", 10), ["abcdefghij", "klmno"]);
        assert_eq!(wrap("数据数据数据数据", 10), ["数据数据数", "据数据"]);
    }

    #[test]
    fn a_long_command_is_continued_outside_quotes() {
        let command =
            ShellCommand::new("echo").arg("net.core.somaxconn = 4096").into_file("/etc/sysctl.d/90-somaxconn.conf");
        let mut page = Page::new(50, false);
        page.shell(0, &command);
        assert_eq!(page.finish(), "echo 'net.core.somaxconn = 4096' \\\n  > /etc/sysctl.d/90-somaxconn.conf\n");
    }

    #[test]
    fn a_pipe_is_continued_before_its_operators() {
        let command = ShellCommand::new("ss -tanH state time-wait")
            .pipe(ShellCommand::new("sort"))
            .pipe(ShellCommand::new("uniq -c"));
        let mut page = Page::new(40, false);
        page.shell(0, &command);
        assert_eq!(page.finish(), "ss -tanH state time-wait | sort \\\n  | uniq -c\n");
    }

    #[test]
    fn a_long_setting_keeps_all_of_its_words() {
        let mut page = Page::new(40, false);
        page.setting(2, "listen 10.0.0.1:8080 backlog=4096 reuseport;");
        assert_eq!(page.finish(), "  listen 10.0.0.1:8080 backlog=4096\n      reuseport;\n");
    }

    #[test]
    fn the_comment_of_an_example_moves_to_its_own_line() {
        let mut page = Page::new(40, false);
        page.example(2, "ss -tn state close-wait    # on the client: closed by the server");
        assert_eq!(page.finish(), "  # on the client: closed by the server\n  ss -tn state close-wait\n");
    }

    proptest::proptest! {
        #[test]
        fn wrapping_keeps_the_words_and_the_width(text in "[a-z é数 ]{0,200}", width in 10usize..80) {
            let lines = wrap(&text, width);
            proptest::prop_assert!(lines.iter().all(|line| line.width() <= width));
            let kept: String = lines.concat().split_whitespace().collect();
            let given: String = text.split_whitespace().collect();
            proptest::prop_assert_eq!(kept, given);
        }
    }
}
