//! What the streams have in common, whose answers go on where the last one ended: a row of blocks, in any cut.
//!
//! A block has a head of 8 bytes, little-endian whatever the machine, then its payload: `u32` payload length, `u16` kind
//! ([`Kind`]), `u16` CPU number (0 where it means nothing). What the kinds hold differs between the streams.

pub mod rebase;
pub mod rewrite;

use crate::value::ParseError;

/// What one stream makes of its blocks.
pub trait Content: Default {
    type Parsed;
    /// Names the stream in errors.
    const SOURCE: &'static str;
    /// Takes one block.
    ///
    /// # Errors
    /// The block cannot be understood; nothing more is read then.
    fn block(&mut self, kind: Kind, cpu: u16, payload: &[u8]) -> Result<(), ParseError>;
    /// Hands over what is complete.
    fn take(&mut self) -> Self::Parsed;
    /// Nothing more comes: what waited for more is complete.
    fn end(&mut self) {}
}

/// Collects the answers of one stream, in order and in any cut. Memory is bounded by its [`Content`].
#[derive(Debug)]
pub struct Parser<C> {
    blocks: Blocks,
    pub(super) content: C,
    failed: Option<ParseError>,
}

impl<C: Content> Default for Parser<C> {
    fn default() -> Self {
        Self { blocks: Blocks::new(C::SOURCE), content: C::default(), failed: None }
    }
}

impl<C: Content> Parser<C> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more of the stream. After an error nothing more is read: what was understood before stays.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            let content = &mut self.content;
            let each = &mut |kind, cpu, payload: &[u8]| content.block(kind, cpu, payload);
            self.failed = self.blocks.feed(bytes, each).err();
        }
    }

    /// What stopped the parser.
    pub fn error(&self) -> Option<&ParseError> {
        self.failed.as_ref()
    }

    /// Hands over what is complete since the previous call.
    pub fn take(&mut self) -> C::Parsed {
        self.content.take()
    }

    /// Everything that is left, with the error that cut it short.
    pub fn finish(mut self) -> (C::Parsed, Option<ParseError>) {
        self.end();
        (self.take(), self.failed)
    }

    /// Nothing more comes: what waited for more is complete, and a block that did not end is an error.
    pub fn end(&mut self) {
        self.content.end();
        if self.failed.is_none() && self.blocks.unfinished() > 0 {
            let text = format!("the last block is cut short after {} bytes", self.blocks.unfinished());
            self.failed = Some(ParseError::new(C::SOURCE, None, text));
        }
    }
}

/// The text of a block that is not records.
pub(super) fn text<'a>(source: &str, kind: Kind, payload: &'a [u8]) -> Result<&'a str, ParseError> {
    std::str::from_utf8(payload).map_err(|_| ParseError::new(source, None, format!("{kind:?} block is not UTF-8")))
}

/// A block is at most this long: the largest ring plus some room. A longer one is damage.
pub const MAX_BLOCK: usize = 16 << 20;
pub const HEAD: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Start = 1,
    Format = 2,
    Scope = 3,
    Tasks = 4,
    Symbols = 5,
    Clock = 6,
    Records = 7,
    Counts = 8,
    Note = 9,
}

impl Kind {
    pub fn from_number(number: u16) -> Option<Self> {
        use Kind::*;
        [Start, Format, Scope, Tasks, Symbols, Clock, Records, Counts, Note].into_iter().find(|k| *k as u16 == number)
    }
}

/// The head of a block with `length` bytes of payload.
pub fn head(kind: Kind, cpu: u16, length: u32) -> [u8; HEAD] {
    let [a, b, c, d] = length.to_le_bytes();
    let [e, f] = (kind as u16).to_le_bytes();
    let [g, h] = cpu.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Sends one block.
pub fn send(sink: &mut dyn FnMut(&[u8]), kind: Kind, cpu: u16, payload: &[u8]) {
    sink(&head(kind, cpu, payload.len() as u32));
    sink(payload);
}

/// Writes one block behind others.
pub fn append(out: &mut Vec<u8>, kind: Kind, cpu: u16, payload: &[u8]) {
    send(&mut |bytes| out.extend_from_slice(bytes), kind, cpu, payload);
}

/// Takes one block: kind, CPU, payload.
pub type Each<'a> = dyn FnMut(Kind, u16, &[u8]) -> Result<(), ParseError> + 'a;

/// Cuts a stream into blocks. Holds at most one block.
#[derive(Debug)]
pub struct Blocks {
    source: &'static str,
    partial: Vec<u8>,
}

impl Blocks {
    /// `source` names the stream in errors.
    pub fn new(source: &'static str) -> Self {
        Self { source, partial: Vec::new() }
    }

    /// Calls `each(kind, cpu, payload)` for every block completed by `bytes`; unknown kinds are skipped.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut Each<'_>) -> Result<(), ParseError> {
        /// Of a payload that came in pieces, as the end of a ring and its begin, so much is kept for the next.
        const KEPT: usize = 64 << 10;
        while let Some(head) = self.head(&mut bytes)? {
            let held = self.partial.len() - HEAD;
            let Some((payload, rest)) = bytes.split_at_checked(head.length - held) else {
                self.partial.extend_from_slice(bytes);
                break;
            };
            bytes = rest;
            // The common case, as large as a ring: parsed where it lies.
            let payload = if held == 0 {
                payload
            } else {
                self.partial.extend_from_slice(payload);
                &self.partial[HEAD..]
            };
            let result = head.kind.map_or(Ok(()), |kind| each(kind, head.cpu, payload));
            self.partial.clear();
            self.partial.shrink_to(KEPT);
            result?;
        }
        Ok(())
    }

    /// Bytes of a block that has not ended yet.
    pub fn unfinished(&self) -> usize {
        self.partial.len()
    }

    /// The head of the block that is read, once it is whole.
    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, ParseError> {
        let (now, rest) = bytes.split_at(HEAD.saturating_sub(self.partial.len()).min(bytes.len()));
        self.partial.extend_from_slice(now);
        *bytes = rest;
        let Some(&[a, b, c, d, e, f, g, h]) = self.partial.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_BLOCK {
            return Err(ParseError::new(self.source, None, format!("block length {length} is over {MAX_BLOCK}")));
        }
        let kind = Kind::from_number(u16::from_le_bytes([e, f]));
        Ok(Some(Head { kind, cpu: u16::from_le_bytes([g, h]), length }))
    }
}

/// What a block's head says.
struct Head {
    /// `None` for one that is not known.
    kind: Option<Kind>,
    cpu: u16,
    /// Of the payload, bytes.
    length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = Vec<(Kind, u16, Vec<u8>)>;

    fn collect(chunks: &[&[u8]]) -> (Result<(), ParseError>, Seen, usize) {
        let (mut blocks, mut seen) = (Blocks::new("test"), Vec::new());
        let mut result = Ok(());
        for chunk in chunks {
            result = result.and_then(|()| {
                blocks.feed(chunk, &mut |kind, cpu, payload| {
                    seen.push((kind, cpu, payload.to_vec()));
                    Ok(())
                })
            });
        }
        (result, seen, blocks.unfinished())
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_blocks(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in proptest::collection::vec(1usize..30, 1..40),
        ) {
            let mut stream = Vec::new();
            for (i, payload) in payloads.iter().enumerate() {
                stream.extend_from_slice(&head(Kind::Records, i as u16, payload.len() as u32));
                stream.extend_from_slice(payload);
            }
            let mut chunks: Vec<&[u8]> = Vec::new();
            let (mut rest, mut i) = (&stream[..], 0);
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(cuts[i % cuts.len()].min(rest.len()));
                chunks.push(chunk);
                (rest, i) = (more, i + 1);
            }
            let (result, seen, unfinished) = collect(&chunks);
            prop_assert!(result.is_ok());
            prop_assert_eq!(unfinished, 0);
            let expected: Seen =
                payloads.iter().enumerate().map(|(i, p)| (Kind::Records, i as u16, p.clone())).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn damage_is_an_error_and_a_cut_end_is_known() {
        assert!(collect(&[&[0xff; 8]]).0.is_err());
        let (result, seen, unfinished) = collect(&[&head(Kind::Clock, 0, 5), b"12"]);
        assert!(result.is_ok() && seen.is_empty());
        assert_eq!(unfinished, 10);
    }

    #[test]
    fn an_unknown_kind_is_skipped() {
        let mut stream = vec![1, 0, 0, 0, 0xee, 0, 0, 0, b'x'];
        stream.extend_from_slice(&head(Kind::Note, 0, 1));
        stream.push(b'y');
        assert_eq!(collect(&[&stream]).1, [(Kind::Note, 0, b"y".to_vec())]);
    }
}
