//! Documents for people who were not there: a page (HTML) that needs no network and no script, and a browser enforces that (Content-
//! Security-Policy); and a text for an incident ticket (Markdown). Both say the same: they are templates over the same view. What
//! comes from outside is escaped by the template library; characters that hide or turn text are made visible first.

use askama::Template;

use super::Format;
use super::history::Calendar;
use super::json::{self, Report};
use crate::history::Past;
use crate::value::escape::visible;

mod history;
pub mod markdown;
mod scan;

use history::HistoryView;
use scan::ScanView;

pub const HTML: Format = Format {
    name: "html",
    help: "One page that needs nothing else, for people who were not there",
    for_people: false,
    print: |diagnosis, _| Ok(scan_html(&json::report(diagnosis))?),
    plugin: None,
};

pub const MARKDOWN: Format = Format {
    name: "markdown",
    help: "The same for a ticket",
    for_people: false,
    print: |diagnosis, _| Ok(scan_markdown(&json::report(diagnosis))?),
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
pub fn scan_html(report: &Report) -> Result<String, DocumentError> {
    Ok(ScanPage { it: scan::view(report) }.render()?)
}

/// A diagnosis for a ticket.
///
/// # Errors
/// None in practice.
pub fn scan_markdown(report: &Report) -> Result<String, DocumentError> {
    Ok(ScanTicket { it: scan::view(report) }.render()?)
}

/// The page of a time of a store.
///
/// # Errors
/// None in practice.
pub fn history_html(past: &Past, calendar: &Calendar<'_>, all: bool) -> Result<String, DocumentError> {
    Ok(HistoryPage { it: history::view(past, calendar, all) }.render()?)
}

/// A time of a store for a ticket.
///
/// # Errors
/// None in practice.
pub fn history_markdown(past: &Past, calendar: &Calendar<'_>, all: bool) -> Result<String, DocumentError> {
    Ok(HistoryTicket { it: history::view(past, calendar, all) }.render()?)
}

fn safe(text: &str) -> String {
    visible(text).into_owned()
}

#[cfg(test)]
mod tests;
