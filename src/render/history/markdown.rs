//! The same for a ticket: Markdown as GitHub, GitLab and Jira's converters read it.

use std::fmt::Write as _;

use super::{Calendar, coverage, impact, lasted, reasons, resets, sentence, share, shown, sparkline, word};
use crate::history::{Past, Span};
use crate::value::escape::visible;
use crate::value::words::thousands;

/// A text from outside as it is, whatever it holds.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for letter in visible(text).chars() {
        if letter.is_ascii_punctuation()
            && !matches!(letter, '.' | ',' | ':' | ';' | '%' | '-' | '/' | '(' | ')' | '\'')
        {
            out.push('\\');
        }
        out.push(if letter == '\n' { ' ' } else { letter });
    }
    out
}

pub fn markdown(past: &Past, calendar: &Calendar<'_>, all: bool) -> String {
    let mut out = String::new();
    let span = Span { from: past.wanted.since, until: past.wanted.until };
    let host = past.hostname.as_deref().map(|host| format!(" on {}", plain(host))).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# Connection resets{host}\n\n{} {}, {}.\n",
        plain(&calendar.span(span)),
        calendar.zone,
        coverage(past)
    );
    let _ = writeln!(out, "**{}**\n", plain(&sentence(past)));
    let episodes = shown(past, all);
    if !episodes.is_empty() {
        out.push_str("| When | How long | Severity | Cause | Where | Harm |\n|---|---|---|---|---|---|\n");
        for episode in episodes {
            let cells = [
                (calendar.time)(episode.span.from),
                lasted(episode),
                word(episode.severity).to_lowercase(),
                episode.title.clone(),
                episode.place.words(),
                impact(episode),
            ];
            let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push('\n');
    }
    if !past.services.is_empty() {
        let recorded = past.recorded();
        let highest = past.services.iter().flat_map(|row| row.failed.iter().flatten()).copied().max().unwrap_or(0);
        out.push_str("| Service | Over the time | Connections |\n|---|---|---|\n");
        for row in past.services.iter().take(super::MOST) {
            let line = sparkline(row, &recorded, highest, true);
            let _ = writeln!(out, "| {} | `{line}` | {} |", plain(&row.service.place.words()), plain(&share(row)));
        }
        out.push('\n');
    }
    let _ = writeln!(out, "Resets: {}.", resets(past));
    for (direction, reason, count) in reasons(past) {
        let _ = writeln!(out, "- {} {}: {}", direction.name(), plain(&reason), thousands(count));
    }
    if !past.missing.is_empty() {
        let spans: Vec<String> = past.missing.iter().take(super::MOST).map(|span| calendar.span(*span)).collect();
        let _ = writeln!(out, "\nNot recorded: {}.", plain(&spans.join("; ")));
    }
    let _ = writeln!(out, "\nMade by rstdoctor {}.", env!("CARGO_PKG_VERSION"));
    out
}
