//! The documentation of causes for a terminal: the little Markdown that it uses (headings, paragraphs, lists, code).

use super::layout::{Page, Paint};

/// Adds the text to the page.
pub fn write(page: &mut Page, markdown: &str) {
    for block in blocks(markdown) {
        match block {
            Block::Heading(text) => {
                page.gap();
                page.heading(text);
            }
            Block::Text(text) => {
                page.field("", 2, &together(&text));
                page.line("");
            }
            Block::Item(text) => page.field("  -", 4, &together(&text)),
            Block::Code(line) => page.example(4, line),
            Block::Gap => page.gap(),
        }
    }
}

enum Block<'a> {
    Heading(&'a str),
    Text(String),
    Item(String),
    Code(&'a str),
    Gap,
}

/// Joins the lines of a paragraph or list item.
fn blocks(markdown: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    let mut fenced = false;
    for line in markdown.lines() {
        let text = line.trim();
        if text.starts_with("```") {
            fenced = !fenced;
            blocks.extend(open.take());
        } else if fenced {
            blocks.push(Block::Code(line));
        } else if text.is_empty() {
            blocks.extend(open.take());
            blocks.push(Block::Gap);
        } else if text.starts_with('#') {
            blocks.extend(open.take());
            blocks.push(Block::Heading(text.trim_start_matches('#').trim()));
        } else if let Some(item) = text.strip_prefix("- ").or_else(|| text.strip_prefix("* ")) {
            blocks.extend(open.replace(Block::Item(item.to_owned())));
        } else {
            match &mut open {
                Some(Block::Text(joined) | Block::Item(joined)) => {
                    joined.push(' ');
                    joined.push_str(text);
                }
                _ => open = Some(Block::Text(text.to_owned())),
            }
        }
    }
    blocks.extend(open);
    blocks
}

/// Code must not be broken: its spaces become no-break spaces.
fn together(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts: Vec<_> =
        parts.map(|(index, part)| if index % 2 == 1 { part.replace(' ', "\u{a0}") } else { part.to_owned() }).collect();
    parts.join("`")
}

/// Title line of an explanation.
pub fn title(page: &mut Page, title: &str, id: &str) {
    let title = page.paint(title, Paint::Bold);
    page.line(&format!("{title} ({id})"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_not_broken() {
        let mut page = Page::new(40, false);
        write(&mut page, "Look at what this shows you: `ss -lnt dst 10.0.0.1` says");
        assert_eq!(page.finish(), "  Look at what this shows you:\n  `ss -lnt dst 10.0.0.1` says\n");
    }

    #[test]
    fn paragraphs_lists_and_code_read_well() {
        let mut page = Page::new(40, false);
        write(
            &mut page,
            " ## What happens\n\n One line\n and another that is long enough.\n\n - first\n   point\n - second\n\n ```\n ss -lnt\n ```\n",
        );
        let expected = "What happens\n\n  One line and another that is long\n  enough.\n\n  - first point\n  - second\n\n     ss -lnt\n";
        assert_eq!(page.finish().replace("\n\n\n", "\n\n"), expected);
    }
}
