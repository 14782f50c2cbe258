//! Replaces addresses and names in raw answers before they are stored in a recording.
//!
//! The same address or name always becomes the same pseudonym, so that a listener still joins its sockets, a unit its
//! processes, a reset its packet. Loopback and unspecified addresses, address families, ports, ids and all counters stay. What
//! is not known to be harmless is left out, payload always.

mod events;
mod names;
mod netlink;
mod stream;
mod text;

use events::Events;
use names::Pseudonyms;
use stream::Stream;

use crate::ask::{Ask, What};
use crate::value::{Failure, FailureKind};

/// No text that is redacted is longer, see `source::ask::read`.
const MAX_TEXT: usize = 4 << 20;

/// Remembers the pseudonyms of one recording, and what the streams said that go on from answer to answer.
#[derive(Default)]
pub(super) struct Redactor {
    names: Pseudonyms,
    events: (Stream, Events),
    packets: Stream,
    destroyed_sockets: Stream,
}

/// The redaction of one answer.
pub(super) struct Session<'a> {
    redactor: &'a mut Redactor,
    mode: Mode,
    failure: Option<Failure>,
}

enum Mode {
    /// Whole messages, redacted as they arrive.
    Messages,
    /// Numbers only, see [`What::SocketOwners`].
    Numbers,
    /// Redacted once it is whole.
    Text {
        path: String,
        link: bool,
        text: Vec<u8>,
    },
    /// Inodes stay, names go.
    Namespaces(Vec<u8>),
    Tasks(Vec<u8>),
    Events,
    Packets,
    DestroyedSockets,
}

impl Redactor {
    pub fn begin(&mut self, ask: &Ask) -> Session<'_> {
        let mode = match &ask.what {
            What::SockDiag(_) => Mode::Messages,
            What::SocketOwners { .. } => Mode::Numbers,
            What::File(path) => Mode::Text { path: path.clone(), link: false, text: Vec::new() },
            What::Link(path) => Mode::Text { path: path.clone(), link: true, text: Vec::new() },
            What::ResetEvents => Mode::Events,
            What::ResetPackets => Mode::Packets,
            What::DestroyedSockets => Mode::DestroyedSockets,
            What::Namespaces => Mode::Namespaces(Vec::new()),
            What::Tasks => Mode::Tasks(Vec::new()),
        };
        Session { redactor: self, mode, failure: None }
    }
}

fn left_out() -> Failure {
    Failure::new(FailureKind::NotCollected, "left out by --redact")
}

fn not_understood() -> Failure {
    Failure::new(FailureKind::Broken, "left out by --redact: messages that are not understood cannot be redacted")
}

impl Session<'_> {
    /// What may be stored now of the bytes that one call of the sink got.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.failure.is_some() {
            return Vec::new();
        }
        let Redactor { names, events: (stream, events), packets, destroyed_sockets } = &mut *self.redactor;
        let (out, understood) = match &mut self.mode {
            Mode::Messages => {
                let mut messages = bytes.to_vec();
                let understood = names.messages(&mut messages);
                (messages, understood)
            }
            Mode::Events => stream.feed(bytes, &mut |kind, payload| events.block(names, kind, payload)),
            Mode::Packets => packets.feed(bytes, &mut |kind, payload| stream::packets(names, kind, payload)),
            Mode::DestroyedSockets => {
                destroyed_sockets.feed(bytes, &mut |kind, payload| stream::destroyed_sockets(names, kind, payload))
            }
            Mode::Numbers => {
                if bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b' ' | b'\n')) {
                    return bytes.to_vec();
                }
                self.failure = Some(left_out());
                return Vec::new();
            }
            Mode::Text { text, .. } | Mode::Namespaces(text) | Mode::Tasks(text) => {
                if text.len() + bytes.len() > MAX_TEXT {
                    self.failure = Some(left_out());
                } else {
                    text.extend_from_slice(bytes);
                }
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
            (None, Mode::Text { path, link, text }) if complete => {
                let redacted = match link {
                    true => text::namespace_link(&text).then_some(text),
                    false => self.redactor.names.text(&path, text),
                };
                redacted.ok_or_else(left_out)
            }
            (None, Mode::Tasks(text)) => {
                let text = std::str::from_utf8(&text).ok();
                text.and_then(|text| events::tasks(&mut self.redactor.names, text)).ok_or_else(left_out)
            }
            (None, Mode::Namespaces(text)) => {
                let inode = |line: &[u8]| line.iter().copied().take_while(u8::is_ascii_digit).chain([b'\n']).collect();
                let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(inode).collect();
                Ok(lines.into_iter().filter(|line| line.len() > 1).flatten().collect())
            }
            // An answer ends with a whole block.
            (None, Mode::Events) if self.redactor.events.0.is_within_a_block() => Err(not_understood()),
            (None, Mode::Packets) if self.redactor.packets.is_within_a_block() => Err(not_understood()),
            (None, Mode::DestroyedSockets) if self.redactor.destroyed_sockets.is_within_a_block() => {
                Err(not_understood())
            }
            (None, _) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
