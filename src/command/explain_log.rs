//! The explanation of everything that a log or a pasted text contains.

use std::io::BufRead;

use super::explain_text::{NO_CAUSE, advice, ranked, rest};
use crate::cause;
use crate::knowledge::log::{self, Digest, KnownText, Ranked, Tally, Unknown};
use crate::render::layout::{Page, shorten};
use crate::value::escape::visible;
use crate::value::words::{counted, percent, thousands};

/// Causes that are shown with their reason.
const CAUSES: usize = 4;
/// Error texts that are shown with their places.
const TEXTS: usize = 6;
/// Counters that are shown.
const COUNTERS: usize = 5;
/// Servers, clients and paths that are named for a text.
const PLACES: usize = 2;

/// Standard input cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("standard input: cannot be read")]
    Io(#[from] std::io::Error),
    #[error("standard input is {0}")]
    NoText(&'static str),
}

/// What the text contains, and the causes that it supports.
///
/// # Errors
/// The reader's; or it is no text, but a capture for example.
pub fn log(page: &mut Page, reader: &mut dyn BufRead) -> Result<(), Error> {
    if let Some(what) = log::no_text(reader)? {
        return Err(Error::NoText(what));
    }
    let digest = log::digest(reader)?;
    summary(page, &digest);
    let shown = log::rank(&digest);
    texts(page, &digest);
    counters(page, &digest);
    let remarks = shown.remarks.iter().cloned().chain(digest.paste.remarks());
    for remark in remarks {
        page.field("  - ", 4, &remark);
    }
    causes(page, &digest, &shown.causes);
    unknown(page, &digest, "Not understood", &digest.paste_unknown);
    unknown(page, &digest, "Not known, but it looks like an error", &digest.errors_unknown);
    Ok(())
}

fn summary(page: &mut Page, digest: &Digest) {
    let errors: u64 = digest.found.iter().map(|found| found.lines).sum();
    let mut parts = vec![format!("{} read", counted(digest.lines, "line"))];
    let pasted = digest.paste.lines();
    if errors > 0 || pasted == 0 {
        parts.push(format!("{} with a known error text", thousands(errors)));
    }
    if pasted > 0 {
        parts.push(format!("{} of netstat, ss, sar, tcpdump or a trace", thousands(pasted)));
    }
    let span = match digest.first.zip(digest.last) {
        Some((first, last)) if errors > 0 && last.since(&first).is_some_and(|span| span >= 1.0) => {
            format!(", {}", first.until(&last))
        }
        _ => String::new(),
    };
    page.field("", 0, &format!("{}{span}.", parts.join(", ")));
    if digest.cut > 0 {
        let longer = format!("{} longer than {} KiB", counted(digest.cut, "line"), log::MAX_LINE / 1024);
        page.field("", 0, &format!("{longer}: only the beginning was looked at."));
    }
    if digest.suppressed > 0 {
        page.field("", 0, &format!("The kernel held back {} more.", counted(digest.suppressed, "message")));
    }
}

fn texts(page: &mut Page, digest: &Digest) {
    let mut found: Vec<&KnownText> = digest.found.iter().collect();
    if found.is_empty() {
        return;
    }
    // Roots first: they are few, and what explains the rest.
    found.sort_by_key(|found| (!found.text.event, std::cmp::Reverse(found.lines)));
    page.gap();
    page.heading("  lines  error text");
    for found in found.iter().take(TEXTS) {
        let place = format!("({})", digest.places(found.first, found.last));
        page.field(&format!("{:>7}  ", thousands(found.lines)), 9, &format!("{} {place}", found.text.name));
        let places = [("server", &found.servers), ("client", &found.clients), ("path", &found.paths)];
        let places: Vec<_> = places.iter().filter_map(|(what, tally)| named(what, tally)).collect();
        if !places.is_empty() {
            page.field("", 9, &places.join(", "));
        }
    }
    if let Some(more) = found.len().checked_sub(TEXTS).filter(|more| *more > 0) {
        page.field("", 9, &format!("and {} with fewer lines", counted(more as u64, "text")));
    }
}

/// `server 10.0.0.7:80 (3), 10.0.0.8:80 (1) and 2 more`.
fn named(what: &str, tally: &Tally) -> Option<String> {
    let ranked = tally.ranked();
    let one = ranked.len() == 1;
    let first: Vec<_> = ranked
        .iter()
        .take(PLACES)
        .map(|(name, count)| if one { (*name).to_owned() } else { format!("{name} ({})", thousands(*count)) })
        .collect();
    let more = ranked.len().saturating_sub(PLACES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!first.is_empty()).then(|| format!("{what} {}{more}", first.join(", ")))
}

fn counters(page: &mut Page, digest: &Digest) {
    let counters = &digest.paste.counters;
    if counters.lines > 0 {
        page.gap();
        let (ordinary, telling): (Vec<_>, Vec<_>) =
            counters.telling().into_iter().partition(|(text, counter)| counters.ordinary(text, *counter));
        let when = if counters.window() {
            "between the two times"
        } else {
            "since boot: that it happened, not that it happens now"
        };
        let none = if telling.is_empty() { "none that tells of a fault" } else { "" };
        page.heading(&format!("Counters {when}{}{none}", if none.is_empty() { "" } else { ": " }));
        for (text, counter) in telling.iter().take(COUNTERS) {
            page.field(&format!("{:>13}  ", thousands(counter.value())), 15, &text.name);
        }
        if telling.len() > COUNTERS {
            page.field("", 15, &format!("and {} smaller", telling.len() - COUNTERS));
        }
        if !ordinary.is_empty() {
            let names: Vec<_> = ordinary
                .iter()
                .map(|(text, counter)| {
                    let name = text.name.split(':').next().unwrap_or_default();
                    format!("{name} {}", thousands(counter.value()))
                })
                .collect();
            page.field("  ordinary: ", 12, &names.join(", "));
        }
    }
    if counters.foreign() {
        page.field("  - ", 4, "netstat speaks another language here: LC_ALL=C netstat -s | rstdoctor explain -");
    }
    if let Some(share) = counters.lossy() {
        page.field(
            "  - ",
            4,
            &format!(
                "{} of the segments were sent again: the path loses packets, and resets may only follow from that",
                percent(share)
            ),
        );
    }
    if digest.paste.packets.packets > 0 {
        page.gap();
        page.heading(&format!("Packets: {}", digest.paste.packets.summary()));
    } else if digest.paste.sockets.lines > 0 {
        page.gap();
        page.heading("Sockets");
    }
}

fn causes(page: &mut Page, digest: &Digest, ranking: &[Ranked]) {
    let causes: Vec<_> = ranking.iter().filter_map(|it| Some((cause::by_id(it.id)?, it))).collect();
    let Some((best, first)) = causes.first() else {
        if let Some(found) = digest.found.first() {
            page.gap();
            page.field("", 0, NO_CAUSE);
            advice(page, found.text, &found.example);
        }
        return;
    };
    page.gap();
    page.heading("Causes, as this text supports them");
    ranked(page, causes.iter().take(CAUSES).map(|(cause, it)| (*cause, it.reason.as_str())));
    rest(page, causes.iter().skip(CAUSES).map(|(cause, _)| *cause));
    page.gap();
    advice(page, first.text, &first.example);
    page.field("", 2, &format!("More: rstdoctor explain {}", best.id));
}

/// What nobody understood is named, so that nobody believes that all was read.
fn unknown(page: &mut Page, digest: &Digest, what: &str, unknown: &Unknown) {
    if unknown.lines == 0 {
        return;
    }
    page.gap();
    page.field("", 0, &format!("{what}: {}", counted(unknown.lines, "line")));
    for (line, text) in &unknown.samples {
        let label = format!("  {}: ", digest.place(*line));
        page.line(&format!("{label}{}", shorten(&visible(text), page.width().saturating_sub(label.len()))));
    }
}
