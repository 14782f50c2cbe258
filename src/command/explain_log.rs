//! The explanation of everything that a log contains.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::explain_text::{ranked, rest};
use crate::cause;
use crate::knowledge::error_texts;
use crate::knowledge::log;
use crate::render::layout::Page;
use crate::value::words::{counted, thousands};

/// Causes that are named for a log.
const CAUSES: usize = 6;

/// Counts the known error texts of a log, and names the causes that most lines point to.
///
/// # Errors
/// The reader's.
pub fn log(page: &mut Page, reader: &mut dyn BufRead) -> std::io::Result<()> {
    // A line counts for the text that fits it best.
    let best = |line: &[u8]| {
        let best = error_texts::matches(line).into_iter().next();
        best.and_then(|text| error_texts::all().iter().position(|known| std::ptr::eq(known, text)))
            .into_iter()
            .collect()
    };
    let tally = log::tally(reader, best)?;
    let mut found: Vec<_> =
        tally.found.iter().filter_map(|(index, count)| Some((error_texts::all().get(*index)?, count))).collect();
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
    let mut pointing: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
    for (text, count) in &found {
        let place = match count.lines {
            1 => format!("(line {})", thousands(count.first)),
            _ => format!("(lines {} to {})", thousands(count.first), thousands(count.last)),
        };
        page.field(&format!("{:>7}  ", thousands(count.lines)), 9, &format!("{} {place}", text.name));
        for (rank, candidate) in text.causes.iter().enumerate() {
            let entry = pointing.entry(&candidate.id).or_insert((0.0, &candidate.why));
            entry.0 += count.lines as f64 / (rank + 1) as f64;
        }
    }
    let mut causes: Vec<_> =
        pointing.into_iter().filter_map(|(id, (weight, why))| Some((weight, cause::by_id(id)?, why))).collect();
    causes.sort_by(|a, b| b.0.total_cmp(&a.0));
    if !causes.is_empty() {
        page.gap();
        page.heading("Causes to look at");
        ranked(page, causes.iter().take(CAUSES).map(|(_, cause, why)| (*cause, *why)));
        rest(page, causes.iter().skip(CAUSES).map(|(_, cause, _)| *cause));
    }
    page.gap();
    let more = "rstdoctor explain CAUSE tells more; rstdoctor scan says which one it is on this host, and rstdoctor trace shows \
                each reset as it happens.";
    page.field("", 0, more);
    Ok(())
}
