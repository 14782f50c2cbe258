//! From a diagnosis to bytes: one file per output format. Nothing here knows a terminal; its width and whether it shows
//! colour are parameters.

pub mod block;
mod capture;
pub mod catalogue;
pub mod document;
pub mod folding;
pub mod format;
mod grid;
pub mod history;
pub mod json;
pub mod layout;
mod ledger_table;
mod listeners_table;
pub mod markdown;
mod missing;
pub mod nagios;
mod namespaces;
mod openmetrics;
mod page;
mod port;
#[cfg(test)]
mod samples;
pub mod table;
pub mod trace;
pub mod verdict;
pub mod watch;

pub use format::{Format, Plugin};
pub use table::{Options, table};

/// What `scan --format` knows; the first is meant where none is given.
pub static FORMATS: [Format; 6] =
    [table::FORMAT, json::FORMAT, document::HTML, document::MARKDOWN, openmetrics::FORMAT, nagios::FORMAT];
