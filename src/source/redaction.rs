//! What a recording may hold of a source's answers. Each source has its [`Rule`] beside its parser, and
//! [`redactions`](super::redactions) lists them: a question without one is left out of a redacted recording.
//!
//! A rule keeps what it knows to be harmless (numbers, the kernel's own words), replaces what it knows to be an address or a
//! name, and leaves out everything else.

use super::pseudonyms::Pseudonyms;
use crate::ask::What;
use crate::stream::Kind;

/// Which questions a source asks, and how the answers are redacted.
pub struct Rule {
    pub source: &'static str,
    pub asks: fn(&What) -> bool,
    pub redaction: Redaction,
}

pub enum Redaction {
    /// Nothing in the answers names anybody.
    Harmless,
    /// A whole answer. `None` if it does not have the form that is expected of it.
    Text(fn(&mut Pseudonyms, Vec<u8>) -> Option<Vec<u8>>),
    /// Whole messages or lines as they arrive. False if one was not understood: it and all behind it is missing.
    Parts(fn(&mut Pseudonyms, &[u8]) -> (Vec<u8>, bool)),
    /// The blocks of one stream, by what remembers those before.
    Stream(fn() -> Box<dyn BlockRedaction>),
}

/// Redacts the blocks of one stream.
pub trait BlockRedaction: Send {
    /// The payload that may be stored. `None` if it was not understood.
    fn block(&mut self, names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>>;
}

impl Rule {
    pub const fn harmless(source: &'static str, asks: fn(&What) -> bool) -> Self {
        Self { source, asks, redaction: Redaction::Harmless }
    }

    pub const fn text(
        source: &'static str,
        asks: fn(&What) -> bool,
        redact: fn(&mut Pseudonyms, Vec<u8>) -> Option<Vec<u8>>,
    ) -> Self {
        Self { source, asks, redaction: Redaction::Text(redact) }
    }
}

/// Numbers and small words.
pub fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let harmless = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b' ' | b'-' | b'\n');
    text.iter().all(harmless).then(|| text.to_vec())
}

/// A note of a stream: what is missing and why, in our own words.
pub fn note(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok().map(|text| text.as_bytes().to_vec())
}

/// The scope block of a stream: `address A` and `local PREFIX/LENGTH` lines, and lines of a word and numbers.
pub fn scope(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let mut out = String::new();
    for line in std::str::from_utf8(text).ok()?.lines() {
        match line.split_once(' ') {
            Some(("address", address)) => out.push_str(&format!("address {}\n", names.ip(address.parse().ok()?))),
            Some(("local", net)) => out.push_str(&names.local(net.parse().ok()?)),
            _ => {
                plain(line.as_bytes())?;
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Some(out.into_bytes())
}
