//! From a diagnosis to bytes: one file per output format. Nothing here knows a terminal; its width and whether it shows
//! colour are parameters.

pub mod block;
mod capture;
pub mod catalogue;
pub mod document;
pub mod folding;
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
mod page;
mod port;
#[cfg(test)]
mod samples;
pub mod table;
pub mod trace;
pub mod verdict;
pub mod watch;

pub use table::{Options, table};
