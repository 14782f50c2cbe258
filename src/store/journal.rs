//! The index of a store while it is written: entries are written as they come, and what cannot be written is told of once it
//! can be again.

use std::time::Duration;

use super::{Store, StoreFile};
use crate::history::{Entry, millis};
use crate::recording::IndexWriter;
use crate::recording::write::RecordError;
use crate::value::Moment;

/// A file of the index is closed after so much time, or so many bytes of entries.
const LONGEST: Duration = Duration::from_secs(3600);
const LARGEST: usize = 4 << 20;
/// After a failed write it is tried again, but not at once.
const RETRY: Duration = Duration::from_secs(10);

/// Writes the index.
pub struct Journal {
    redacted: bool,
    open: Option<Open>,
    /// Since when, and why nothing could be written.
    lost: Option<(Moment, String)>,
    not_before: Duration,
}

struct Open {
    writer: IndexWriter<StoreFile>,
    since: Moment,
    bytes: usize,
}

impl Journal {
    pub fn new(redacted: bool) -> Self {
        Self { redacted, open: None, lost: None, not_before: Duration::ZERO }
    }

    /// Writes an entry; the first failure of a row of them is handed back.
    ///
    /// # Errors
    /// The disk is full, or the store is.
    pub fn push(&mut self, store: &mut Store, at: Moment, entry: &Entry) -> Result<(), RecordError> {
        if self.open.is_none() && at.mono < self.not_before {
            return Ok(());
        }
        match self.write(store, at, entry) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.open = None;
                self.not_before = at.mono.saturating_add(RETRY);
                let first = self.lost.is_none();
                self.lost.get_or_insert_with(|| (at, error.why()));
                if first { Err(error) } else { Ok(()) }
            }
        }
    }

    fn write(&mut self, store: &mut Store, at: Moment, entry: &Entry) -> Result<(), RecordError> {
        let full = |open: &Open| at.mono.saturating_sub(open.since.mono) >= LONGEST || open.bytes >= LARGEST;
        if self.open.as_ref().is_some_and(full) {
            self.close()?;
        }
        if self.open.is_none() {
            let writer = IndexWriter::new(store.index(at)?, self.redacted);
            self.open = Some(Open { writer, since: at, bytes: 0 });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Some((since, why)) = &self.lost {
            let lost = Entry::Lost { from: millis(since.wall), until: millis(at.wall), why: why.clone() };
            open.put(at, &lost)?;
            self.lost = None;
        }
        open.put(at, entry)?;
        if matches!(entry, Entry::Minute(_)) {
            open.writer.out().sync()?;
        }
        Ok(())
    }

    /// Nothing can be written since then.
    pub fn lost_since(&self) -> Option<Moment> {
        self.lost.as_ref().map(|(since, _)| *since)
    }

    /// Closes the file that is open; the next entry begins another.
    ///
    /// # Errors
    /// As of [`Journal::push`].
    pub fn close(&mut self) -> Result<(), RecordError> {
        self.open.take().map_or(Ok(()), |open| open.writer.finish()?.persist())
    }
}

impl Open {
    fn put(&mut self, at: Moment, entry: &Entry) -> Result<(), RecordError> {
        let text = serde_json::to_vec(entry).map_err(std::io::Error::from)?;
        self.bytes += text.len();
        self.writer.push(at, &text)
    }
}
