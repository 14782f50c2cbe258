//! Texts about all causes, generated from the registry: the list of `rstdoctor explain`, the manual page
//! rstdoctor-causes(7) and the table in the README.

use clap_mangen::roff::{Roff, bold, roman};

use crate::cause::{Cause, REGISTRY};

/// First sentence of a cause's documentation, without the Markdown marks.
pub fn first_sentence(cause: &Cause) -> String {
    let paragraph: Vec<&str> = cause
        .doc
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || line.starts_with('#'))
        .take_while(|line| !line.is_empty())
        .collect();
    let text = paragraph.join(" ").replace('`', "");
    match text.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => text,
    }
}

/// A cause's documentation with what it needs to be checked, Markdown.
pub fn documentation(cause: &Cause) -> String {
    let needs: Vec<_> = cause.needs.iter().map(|source| format!("- `{}`: {}", source.name(), source.what())).collect();
    format!("{}\n## Needs\n\nWithout these it may be impossible to check:\n\n{}\n", cause.doc, needs.join("\n"))
}

/// Causes whose id or title resembles the text, the most similar first.
pub fn similar(text: &str) -> Vec<&'static Cause> {
    let wanted = text.to_lowercase();
    let mut scored: Vec<(f64, &'static Cause)> = REGISTRY
        .iter()
        .copied()
        .map(|cause| {
            let title = cause.title.to_lowercase();
            let likeness = strsim::jaro_winkler(cause.id, &wanted).max(strsim::jaro_winkler(&title, &wanted));
            let part = cause.id.split('-').any(|part| part.len() > 3 && wanted.contains(part));
            (if part { likeness.max(0.85) } else { likeness }, cause)
        })
        .filter(|(likeness, _)| *likeness >= 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, cause)| cause).take(5).collect()
}

/// The cause with this id or title, however it is written: `accept queue overflow`, `accept_queue_overflow`.
pub fn find(text: &str) -> Option<&'static Cause> {
    let plain = |text: &str| text.trim().to_lowercase().replace(['_', ' '], "-");
    let wanted = plain(text);
    REGISTRY.iter().copied().find(|cause| cause.id == wanted || plain(cause.title) == wanted)
}

/// rstdoctor-causes(7).
pub fn causes_page() -> Vec<u8> {
    let mut page = Roff::new();
    page.control("TH", ["rstdoctor-causes", "7", "", concat!("rstdoctor ", env!("CARGO_PKG_VERSION")), ""]);
    page.control("SH", ["NAME"]);
    page.text([roman("rstdoctor-causes - why TCP connections are reset, refused or dropped, and what to change")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("Every cause that "),
        bold("rstdoctor scan"),
        roman(" looks for. The same text is shown by "),
        bold("rstdoctor explain CAUSE"),
        roman("."),
    ]);
    for cause in REGISTRY {
        page.control("SH", [format!("{} ({})", cause.title, cause.id).as_str()]);
        roff(&mut page, &documentation(cause));
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("rstdoctor"),
        roman("(1), "),
        bold("rstdoctor-scan"),
        roman("(1), "),
        bold("rstdoctor-trace"),
        roman("(1), "),
        bold("ss"),
        roman("(8), "),
        bold("tcp"),
        roman("(7)"),
    ]);
    page.to_roff().into_bytes()
}

/// The little Markdown of the documentation as roff.
fn roff(page: &mut Roff, markdown: &str) {
    let mut paragraph: Vec<&str> = Vec::new();
    let mut fenced = false;
    let flush = |page: &mut Roff, paragraph: &mut Vec<&str>| {
        if !paragraph.is_empty() {
            let text = std::mem::take(paragraph).join(" ");
            page.text(inline(&text));
        }
    };
    for line in markdown.lines() {
        let text = line.trim();
        if text.starts_with("```") {
            flush(page, &mut paragraph);
            page.control(if fenced { "EE" } else { "EX" }, []);
            fenced = !fenced;
        } else if fenced {
            page.text([roman(line)]);
        } else if text.is_empty() {
            flush(page, &mut paragraph);
        } else if text.starts_with('#') {
            flush(page, &mut paragraph);
            page.control("SS", [text.trim_start_matches('#').trim()]);
        } else if let Some(item) = text.strip_prefix("- ").or_else(|| text.strip_prefix("* ")) {
            flush(page, &mut paragraph);
            page.control("IP", ["\\(bu", "2"]);
            paragraph.push(item);
        } else {
            if paragraph.is_empty() {
                page.control("PP", []);
            }
            paragraph.push(text);
        }
    }
    flush(page, &mut paragraph);
}

/// Code in bold.
fn inline(text: &str) -> Vec<clap_mangen::roff::Inline> {
    text.split('`').enumerate().map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// Marks of the generated part of the README.
pub const README_BEGIN: &str = "<!-- causes: generated from the registry, do not edit -->";
pub const README_END: &str = "<!-- end of causes -->";

/// The table of causes in the README, the marks included.
pub fn readme_table() -> String {
    let mut table = format!("{README_BEGIN}\n| Cause | What happens | Needs |\n|---|---|---|\n");
    for cause in REGISTRY {
        let needs = cause.needs.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ");
        table.push_str(&format!("| `{}` | {} | {needs} |\n", cause.id, first_sentence(cause).replace('|', "\\|")));
    }
    table.push_str(README_END);
    table
}

/// The text with its generated part renewed; `None` if the marks are missing.
pub fn renew_readme(readme: &str) -> Option<String> {
    let (head, rest) = readme.split_once(README_BEGIN)?;
    let (_, tail) = rest.split_once(README_END)?;
    Some(format!("{head}{}{tail}", readme_table()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_found_however_they_are_written() {
        for text in ["accept-queue-overflow", "Accept queue overflow", "ACCEPT_QUEUE_OVERFLOW"] {
            assert_eq!(find(text).map(|cause| cause.id), Some("accept-queue-overflow"), "{text}");
        }
        assert!(find("nonesuch").is_none());
    }

    #[test]
    fn a_typo_is_answered_with_the_near_one() {
        let ids = |text| similar(text).iter().map(|cause| cause.id).collect::<Vec<_>>();
        assert!(ids("acept-queue-overflow").contains(&"accept-queue-overflow"));
        assert!(ids("zzzz").is_empty());
    }

    #[test]
    fn every_cause_says_in_one_sentence_what_happens() {
        for cause in REGISTRY {
            let sentence = first_sentence(cause);
            assert!(sentence.ends_with('.') && (20..=300).contains(&sentence.len()), "{}: {sentence:?}", cause.id);
        }
    }
}
