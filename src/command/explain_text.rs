//! The explanation of an error text, and of everything that a log contains.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::cause;
use crate::knowledge::error_texts::{self, ERROR_TEXTS, ErrorText};
use crate::knowledge::log;
use crate::render::catalogue;
use crate::render::layout::{Page, shorten};
use crate::value::words::{counted, thousands};

/// Causes that are named for one text or log.
const CAUSES: usize = 6;

/// What the error text means; the page fits one screen. False if it is not known.
pub fn text(page: &mut Page, words: &str) -> bool {
    let known = error_texts::matches(words);
    let Some(best) = known.first() else { return false };
    one(page, best);
    for other in known.iter().skip(1) {
        page.field("Also: ", 6, &format!("{}: {}", other.name, other.meaning));
    }
    true
}

fn one(page: &mut Page, text: &ErrorText) {
    page.heading(&text.name);
    page.field("", 0, &text.meaning);
    page.gap();
    page.heading("Who is at fault");
    for fault in &text.fault {
        page.field("  -", 4, fault);
    }
    if !text.causes.is_empty() {
        page.gap();
        page.heading("Causes that lead to it");
        causes(page, text.causes.iter().take(CAUSES).map(|id| (id.as_str(), None)));
    }
    page.gap();
    page.heading("How to tell them apart");
    for command in &text.tell_apart {
        page.example(2, command);
    }
    page.gap();
    page.heading("What to change");
    page.field("", 2, &text.change);
    page.gap();
}

/// One line for each; the number is how many log lines point to it.
fn causes<'a>(page: &mut Page, causes: impl Iterator<Item = (&'a str, Option<u64>)>) {
    for (id, lines) in causes {
        let what = cause::by_id(id).map(catalogue::first_sentence).unwrap_or_default();
        let label = match lines {
            Some(lines) => format!("  {:>7}  {id}", thousands(lines)),
            None => format!("  {id}"),
        };
        let indent = if lines.is_some() { 38 } else { 29 };
        let room = page.width().saturating_sub(indent);
        page.field(&label, indent, &shorten(&what, room));
    }
}

/// Counts the known error texts of a log, and names the causes that most lines point to.
///
/// # Errors
/// The reader's.
pub fn log(page: &mut Page, reader: &mut dyn BufRead) -> std::io::Result<()> {
    // A line counts for the text that fits it best.
    let best = |line: &str| {
        let best = error_texts::matches(line).into_iter().next();
        best.and_then(|text| ERROR_TEXTS.iter().position(|known| std::ptr::eq(known, text))).into_iter().collect()
    };
    let tally = log::tally(reader, best)?;
    let mut found: Vec<_> =
        tally.found.iter().filter_map(|(index, count)| Some((ERROR_TEXTS.get(*index)?, count))).collect();
    found.sort_by_key(|(_, count)| std::cmp::Reverse(count.lines));
    let all: u64 = found.iter().map(|(_, count)| count.lines).sum();
    page.field("", 0, &format!("{} read, {} with a known error text.", counted(tally.lines, "line"), thousands(all)));
    if tally.cut > 0 {
        let longer = format!("{} longer than {} KiB", counted(tally.cut, "line"), log::MAX_LINE / 1024);
        page.field("", 0, &format!("{longer}: only the beginning was looked at."));
    }
    if found.is_empty() {
        return Ok(());
    }
    page.gap();
    page.heading("  lines  error text");
    let mut pointing: BTreeMap<&str, u64> = BTreeMap::new();
    for (text, count) in &found {
        let place = match count.lines {
            1 => format!("(line {})", thousands(count.first)),
            _ => format!("(lines {} to {})", thousands(count.first), thousands(count.last)),
        };
        page.field(&format!("{:>7}  ", thousands(count.lines)), 9, &format!("{} {place}", text.name));
        for id in &text.causes {
            *pointing.entry(id).or_default() += count.lines;
        }
    }
    let mut pointing: Vec<_> = pointing.into_iter().collect();
    pointing.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    if !pointing.is_empty() {
        page.gap();
        page.heading("Causes to look at, with the lines that point to each");
        causes(page, pointing.into_iter().take(CAUSES).map(|(id, lines)| (id, Some(lines))));
    }
    page.gap();
    let more = "rstdoctor explain CAUSE tells more; rstdoctor scan says which one it is on this host, and rstdoctor trace shows \
                each reset as it happens.";
    page.field("", 0, more);
    Ok(())
}
