//! Frames in memory, and how those from the middle of a row become a recording of their own.
//!
//! The first of them becomes dump and opening snapshot, the last the closing one; and the streams begin anew: what they said
//! once and for all is kept when the frame that heard it is forgotten ([`Past`]), and their running totals count from the
//! beginning of the recording.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::encoder::{Encoder, Part};
use super::format::{FrameKind, Manifest};
use super::frame::{Times, what};
use super::write::{Output, RecordError};
use crate::ask::{self, Answer, Ask, Frame, Probe, What};
use crate::source::reset_events::SideBand;
use crate::stream::Kind;
use crate::stream::rebase::StreamStart;
use crate::value::Moment;

/// Files of which the latest text is kept.
const FILES: usize = 256;
/// An answer that is larger, a sweep of very many sockets, is not kept: it would push out all others.
const LARGE: usize = 4 << 20;
/// The same for what a stream holds, which is all that there is of its time: two of the largest rings, full,
/// and what stands beside them.
const LARGE_STREAM: usize = 20 << 20;

#[derive(Clone)]
pub(super) struct KeptFrame {
    pub frame: Frame,
    pub at: Moment,
    pub answers: Vec<Kept>,
    /// The processes of this moment, as the stream of reset events lists them at its beginning.
    pub tasks: Option<Vec<u8>>,
    /// A segment begins with it: what one needs to know who begins to read there.
    pub opening: Option<Vec<Kept>>,
}

#[derive(Clone)]
pub(super) struct Kept {
    /// [`Ask::key`].
    pub key: String,
    /// As the sink got them: a message or line is never cut.
    pub parts: Vec<Vec<u8>>,
    pub answer: Answer,
}

impl KeptFrame {
    pub fn new(frame: Frame, at: Moment) -> Self {
        Self { frame, at, answers: Vec::new(), tasks: None, opening: None }
    }

    /// Bytes of its answers.
    pub fn bytes(&self) -> usize {
        self.answers.iter().map(Kept::bytes).sum()
    }

    /// It closes a window, or opened the first.
    pub fn is_tick(&self) -> bool {
        matches!(self.frame, Frame::Tick { .. } | Frame::Before)
    }

    /// It looked at all sockets and their owners.
    pub fn is_swept(&self) -> bool {
        self.answers.iter().any(|kept| what(&kept.key) == Some("socket_owners"))
    }

    /// Writes it as it is.
    ///
    /// # Errors
    /// What the output says.
    pub fn store<W: Output>(
        &self,
        encoder: &mut Encoder<W>,
        manifest: impl Fn() -> Manifest,
    ) -> Result<(), RecordError> {
        if let Some(opening) = &self.opening {
            encoder.begin(FrameKind::Opening, &Times::new(Frame::Dump, self.at), &manifest)?;
            store(opening, encoder)?;
        }
        encoder.begin(FrameKind::of(self.frame), &Times::new(self.frame, self.at), manifest)?;
        store(&self.answers, encoder)?;
        encoder.flush()
    }
}

fn store<W: Output>(answers: &[Kept], encoder: &mut Encoder<W>) -> Result<(), RecordError> {
    for kept in answers {
        if encoder.answer(&kept.key)? {
            let mut part = Part::default();
            kept.parts.iter().try_for_each(|bytes| encoder.push(&mut part, bytes))?;
            encoder.close(part, kept.answer.result.clone().err())?;
        }
    }
    Ok(())
}

impl Kept {
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// See [`What::is_stream`].
    pub fn is_stream(&self) -> bool {
        matches!(what(&self.key), Some("reset_events" | "reset_packets" | "destroyed_sockets"))
    }
}

/// Asks and keeps the answer; `None` for one that is too large to be kept. And the processes of the moment, where a recording
/// may begin with it: with a sweep, because who started since the first tick is not in its events. They are a part of what a
/// sweep costs, by which the next one is scheduled. `begins`: a recording may begin with this frame.
pub(super) fn ask_and_keep(
    inner: &mut impl Probe,
    ask: &Ask,
    begins: bool,
    sink: &mut dyn FnMut(&[u8]),
) -> (Answer, Option<Kept>, Option<Vec<u8>>) {
    let most = if ask.what.is_stream() { LARGE_STREAM } else { LARGE };
    let (mut parts, mut bytes) = (Vec::new(), 0);
    let mut answer = inner.ask(ask, &mut |part| {
        bytes += part.len();
        if bytes <= most {
            parts.push(part.to_vec());
        }
        sink(part);
    });
    let tasks = (begins && matches!(ask.what, What::SocketOwners { .. })).then(|| {
        let (tasks, took) = ask::read(inner, &Ask::host(What::Tasks));
        answer.took += took;
        tasks.ok()
    });
    let kept = (bytes <= most).then(|| Kept { key: ask.key(), parts, answer: answer.clone() });
    (answer, kept, tasks.flatten())
}

/// What stays true of frames that are forgotten.
#[derive(Clone, Default)]
pub(super) struct Past {
    pub streams: BTreeMap<String, StreamStart>,
    /// Of the reset events.
    side_band: SideBand,
    /// The latest text of each file and link, by key: settings are not looked at in every tick.
    files: BTreeMap<String, Kept>,
    /// Streams that failed, by key: none is asked again.
    failed: BTreeMap<String, Kept>,
}

impl Past {
    /// What was asked before the first frame.
    pub fn early(&mut self, kept: Kept) {
        if what(&kept.key) == Some("namespaces") {
            self.files.insert(kept.key.clone(), kept);
        }
    }

    pub fn absorb(&mut self, frame: &KeptFrame) {
        for kept in &frame.answers {
            let known = self.files.len() < FILES || self.files.contains_key(&kept.key);
            match what(&kept.key) {
                _ if kept.is_stream() && kept.answer.result.is_ok() => {
                    let bytes = kept.parts.concat();
                    if what(&kept.key) == Some("reset_events") {
                        self.side_band.absorb(&bytes);
                    }
                    self.streams.entry(kept.key.clone()).or_default().absorb(&bytes);
                    self.failed.remove(&kept.key);
                }
                _ if kept.is_stream() && self.failed.len() < FILES => {
                    self.failed.insert(kept.key.clone(), kept.clone());
                }
                Some(what) if known && (matches!(what, "namespaces" | "node") || what.starts_with("file/")) => {
                    self.files.insert(kept.key.clone(), kept.clone());
                }
                _ => {}
            }
        }
        // They were listed at the end of the frame, so its events told of none that is not in the list.
        let events = self.streams.get_mut(&Ask::host(What::ResetEvents).key());
        if let (Some(tasks), Some(events)) = (&frame.tasks, events) {
            events.replace(Kind::Tasks, 0, tasks);
            self.side_band.clear();
        }
    }

    /// As answers, for one who knows nothing of what was before.
    pub fn opening(&self) -> Vec<Kept> {
        let said = |(key, stream): (&String, &StreamStart)| {
            let side_band = self.side_band.block().filter(|_| what(key) == Some("reset_events"));
            let parts = stream.clone().take().into_iter().chain(side_band).chain(stream.counts()).collect();
            Kept { key: key.clone(), parts, answer: Answer { result: Ok(()), took: Duration::ZERO } }
        };
        let failed = self.failed.values().cloned();
        self.files.values().cloned().chain(self.streams.iter().map(said)).chain(failed).collect()
    }
}

/// Makes of frames from the middle of a row, one by one, those of a recording.
pub(super) struct Renewal {
    /// Up to the end of the first frame.
    past: Past,
    start: Option<Duration>,
}

impl Renewal {
    /// `past`: with the first frame absorbed.
    pub fn new(past: Past) -> Self {
        Self { past, start: None }
    }

    /// The next frame as the recording has it; the first one becomes two. `last`: it closes the recording.
    pub fn frame(&mut self, mut kept: KeptFrame, last: bool) -> Vec<KeptFrame> {
        let first = self.start.is_none();
        let due = kept.at.mono.saturating_sub(*self.start.get_or_insert(kept.at.mono));
        for answer in kept.answers.iter_mut().filter(|kept| kept.is_stream()) {
            let stream = self.past.streams.entry(answer.key.clone()).or_default();
            answer.parts = match first {
                // What it brought happened before. A second answer in the same frame goes on.
                true if what(&answer.key) == Some("reset_events") => {
                    let side_band = std::mem::take(&mut self.past.side_band);
                    stream.take().into_iter().chain(side_band.block()).collect()
                }
                true => stream.take(),
                false => vec![stream.rebased(&answer.parts.concat())],
            };
        }
        // It is about what was before the frame, as the totals in it are.
        for answer in kept.opening.iter_mut().flatten().filter(|kept| kept.is_stream()) {
            if let Some(stream) = self.past.streams.get(&answer.key) {
                answer.parts = vec![stream.rebased(&answer.parts.concat())];
            }
        }
        kept.frame = match kept.frame {
            _ if first => Frame::Before,
            _ if last => Frame::After { end: due },
            Frame::Tick { .. } => Frame::Tick { due, end: Duration::MAX },
            _ => Frame::Poll { due, end: Duration::MAX },
        };
        if !first {
            return vec![kept];
        }
        let asked: BTreeSet<String> = kept.answers.iter().map(|kept| kept.key.clone()).collect();
        let failed = self.past.failed.iter().filter(|(key, _)| !asked.contains(*key));
        kept.answers.extend(failed.map(|(_, failed)| failed.clone()));
        let own = kept.answers.iter().filter(|kept| !kept.is_stream());
        let mut answers: Vec<Kept> = own.cloned().collect();
        let earlier = self.past.files.iter().filter(|(key, _)| !asked.contains(*key));
        answers.extend(earlier.map(|(_, kept)| kept.clone()));
        vec![KeptFrame { answers, ..KeptFrame::new(Frame::Dump, kept.at) }, kept]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen answers of a mebibyte each.
    struct Much;

    impl Probe for Much {
        fn ask(&mut self, _: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
            (0..16).for_each(|_| sink(&vec![0; 1 << 20]));
            Answer { result: Ok(()), took: Duration::ZERO }
        }
    }

    /// A storm fills the rings of two CPUs between two looks: without what they hold nobody can judge that time again.
    #[test]
    fn what_two_full_rings_hold_is_kept_and_a_sweep_of_that_size_is_not() {
        let kept = |what| ask_and_keep(&mut Much, &Ask::host(what), false, &mut |_| {}).1.map(|kept| kept.bytes());
        assert_eq!(kept(What::ResetEvents), Some(16 << 20));
        assert_eq!(kept(What::File("/proc/net/tcp".into())), None);
    }
}
