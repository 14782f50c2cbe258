//! Reads a log, or whatever a person pastes, line by line in bounded memory: what went wrong, when, beside what.

mod digest;
mod encoding;
pub mod fields;
mod rank;
mod reader;
mod time;

pub use digest::{Change, Digest, KnownText, Occurrence, Reading, Tally, Unknown, digest};
pub use encoding::utf16;
pub use rank::{Ranked, Shown, rank};
pub use reader::{MAX_LINE, no_text};
pub use time::{Clock, Stamp};

/// The expressions, for bytes that need not be UTF-8.
fn compiled<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Vec<regex::bytes::Regex> {
    // A test compiles all of them.
    let one = |pattern: &'a str| regex::bytes::RegexBuilder::new(pattern).unicode(false).build().ok();
    patterns.into_iter().filter_map(one).collect()
}
