//! Documents for people who were not there: a page (HTML) that needs no network and no script, and a browser enforces that (Content-
//! Security-Policy); and a text for an incident ticket (Markdown). Both say the same: they are templates over the same view. What
//! comes from outside is escaped by the template library; characters that hide or turn text are made visible first.

use askama::Template;

use super::history::Calendar;
use super::{Format, Options};
use crate::diagnosis::Diagnosis;
use crate::history::Past;
use crate::value::escape::visible;

mod chart;
mod history;
pub mod markdown;
mod scan;

use history::HistoryView;
use scan::ScanView;

pub const HTML: Format = Format {
    name: "html",
    help: "One page that needs nothing else, for people who were not there",
    for_people: false,
    print: |diagnosis, options| Ok(scan_html(diagnosis, options)?),
    plugin: None,
};

pub const MARKDOWN: Format = Format {
    name: "markdown",
    help: "The same for a ticket",
    for_people: false,
    print: |diagnosis, options| Ok(scan_markdown(diagnosis, options)?),
    plugin: None,
};

/// No document can be made.
#[derive(Debug, thiserror::Error)]
#[error("the document cannot be made: {0}")]
pub struct DocumentError(#[from] askama::Error);

#[derive(Template)]
#[template(path = "scan.html")]
struct ScanPage {
    it: ScanView,
}

#[derive(Template)]
#[template(path = "scan.md")]
struct ScanTicket {
    it: ScanView,
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    it: HistoryView,
}

#[derive(Template)]
#[template(path = "history.md")]
struct HistoryTicket {
    it: HistoryView,
}

/// The page of a diagnosis.
///
/// # Errors
/// None in practice.
pub fn scan_html(diagnosis: &Diagnosis, options: &Options) -> Result<String, DocumentError> {
    whole(&ScanPage { it: scan::view(diagnosis, options) })
}

/// A diagnosis for a ticket.
///
/// # Errors
/// None in practice.
pub fn scan_markdown(diagnosis: &Diagnosis, options: &Options) -> Result<String, DocumentError> {
    whole(&ScanTicket { it: scan::view(diagnosis, options) })
}

/// The page of a time of a store.
///
/// # Errors
/// None in practice.
pub fn history_html(past: &Past, calendar: &Calendar<'_>, all: bool) -> Result<String, DocumentError> {
    whole(&HistoryPage { it: history::view(past, calendar, all) })
}

/// A time of a store for a ticket.
///
/// # Errors
/// None in practice.
pub fn history_markdown(past: &Past, calendar: &Calendar<'_>, all: bool) -> Result<String, DocumentError> {
    whole(&HistoryTicket { it: history::view(past, calendar, all) })
}

/// Ends with a newline, as a text does that another follows.
fn whole(template: &impl Template) -> Result<String, DocumentError> {
    let mut text = template.render()?;
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn safe(text: &str) -> String {
    visible(text).into_owned()
}

#[cfg(test)]
mod tests;
