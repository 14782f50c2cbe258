//! Replaces addresses and names in raw answers before they are stored in a recording.
//!
//! The same address or name always becomes the same pseudonym, so that a listener still joins its sockets, a unit its
//! processes, a reset its packet. Loopback and unspecified addresses, address families, ports, ids and all counters stay. What
//! to keep of an answer each source says itself, [`source::redactions`]; payload is never stored.

use std::collections::HashMap;

use crate::ask::Ask;
use crate::source;
use crate::source::pseudonyms::Pseudonyms;
use crate::source::redaction::{BlockRedaction, Redaction};
use crate::stream::rewrite::Rewriter;
use crate::value::{Failure, FailureKind};

/// No text that is redacted is longer, see `ask::read`.
const MAX_TEXT: usize = 4 << 20;

/// Remembers the pseudonyms of one recording, and the streams, which go on from answer to answer.
#[derive(Default)]
pub(super) struct Redactor {
    names: Pseudonyms,
    /// By the key of the question.
    streams: HashMap<String, Stream>,
}

struct Stream {
    rewriter: Rewriter,
    redaction: Box<dyn BlockRedaction>,
}

/// The redaction of one answer.
pub(super) struct Session<'a> {
    names: &'a mut Pseudonyms,
    mode: Mode<'a>,
    failure: Option<Failure>,
}

enum Mode<'a> {
    Harmless,
    Parts(fn(&mut Pseudonyms, &[u8]) -> (Vec<u8>, bool)),
    /// Redacted once it is whole.
    Text {
        redact: fn(&mut Pseudonyms, Vec<u8>) -> Option<Vec<u8>>,
        text: Vec<u8>,
    },
    Stream(&'a mut Stream),
    LeftOut,
}

impl Redactor {
    /// Of one that goes on for months.
    pub fn forget_if_many(&mut self) {
        self.names.forget_if_many();
    }

    pub fn begin(&mut self, ask: &Ask) -> Session<'_> {
        let rule = source::redactions().find(|rule| (rule.asks)(&ask.what));
        let mode = match rule.map(|rule| (&rule.redaction, rule.source)) {
            Some((Redaction::Harmless, _)) => Mode::Harmless,
            Some((Redaction::Parts(redact), _)) => Mode::Parts(*redact),
            Some((Redaction::Text(redact), _)) => Mode::Text { redact: *redact, text: Vec::new() },
            Some((Redaction::Stream(new), source)) => {
                let stream = || Stream { rewriter: Rewriter::new(source), redaction: new() };
                Mode::Stream(self.streams.entry(ask.key()).or_insert_with(stream))
            }
            None => Mode::LeftOut,
        };
        let failure = matches!(mode, Mode::LeftOut).then(left_out);
        Session { names: &mut self.names, mode, failure }
    }
}

fn left_out() -> Failure {
    Failure::new(FailureKind::NotCollected, "left out by --redact")
}

fn not_understood() -> Failure {
    Failure::new(FailureKind::Broken, "left out by --redact: what is not understood cannot be redacted")
}

impl Session<'_> {
    /// What may be stored now of the bytes that one call of the sink got.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.failure.is_some() {
            return Vec::new();
        }
        let (out, understood) = match &mut self.mode {
            Mode::Harmless => (bytes.to_vec(), true),
            Mode::Parts(redact) => redact(self.names, bytes),
            Mode::Stream(Stream { rewriter, redaction }) => {
                rewriter.feed(bytes, &mut |kind, payload| redaction.block(self.names, kind, payload))
            }
            Mode::Text { text, .. } if text.len() + bytes.len() <= MAX_TEXT => {
                text.extend_from_slice(bytes);
                (Vec::new(), true)
            }
            Mode::Text { .. } | Mode::LeftOut => {
                self.failure = Some(left_out());
                return Vec::new();
            }
        };
        if !understood {
            self.failure = Some(not_understood());
        }
        out
    }

    /// What may be stored at the end, or why the answer is not (wholly) stored. A text that broke off is dropped.
    pub fn end(self, complete: bool) -> Result<Vec<u8>, Failure> {
        match (self.failure, self.mode) {
            (Some(failure), _) => Err(failure),
            (None, Mode::Text { redact, text }) if complete => redact(self.names, text).ok_or_else(left_out),
            // An answer ends with a whole block.
            (None, Mode::Stream(stream)) if stream.rewriter.is_within_a_block() => Err(not_understood()),
            (None, _) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
