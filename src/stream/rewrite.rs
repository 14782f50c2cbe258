//! A stream whose payloads are replaced, block by block.

use super::{Blocks, Kind, append};
use crate::value::ParseError;

/// What becomes of the payload of one block; `None` for one that is not understood.
pub type Change<'a> = dyn FnMut(Kind, &[u8]) -> Option<Vec<u8>> + 'a;

/// Goes on from answer to answer, in any cut.
pub struct Rewriter(Blocks);

impl Rewriter {
    /// `source` names the stream in errors.
    pub fn new(source: &'static str) -> Self {
        Self(Blocks::new(source))
    }

    /// The blocks that these bytes complete, with the payloads that `each` gives; those of a kind that is not known are left
    /// out. False if `each` gave none: that block and all behind it is missing.
    pub fn feed(&mut self, bytes: &[u8], each: &mut Change<'_>) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let result = self.0.feed(bytes, &mut |kind, cpu, payload| {
            let rewritten = each(kind, payload).ok_or_else(|| ParseError::new("stream", None, "not understood"))?;
            append(&mut out, kind, cpu, &rewritten);
            Ok(())
        });
        (out, result.is_ok())
    }

    pub fn is_within_a_block(&self) -> bool {
        self.0.unfinished() > 0
    }
}
