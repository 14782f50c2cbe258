//! Parts of an index that are damaged in every way a disk knows: what was whole is read, in order, and nothing else is; and that
//! something is missing is said.

use std::collections::BTreeSet;
use std::io::{self, Cursor};
use std::ops::Range;
use std::time::Duration;

use flate2::Compression;
use proptest::prelude::*;

use super::*;
use crate::ask::Frame;
use crate::recording::IndexWriter;
use crate::recording::encoder::{Encoder, Part};
use crate::recording::format::{FrameHead, Tag};
use crate::recording::write::manifest;
use crate::value::Moment;

const ENTRIES: u64 = 12;

fn at(minute: u64) -> Moment {
    Moment {
        mono: Duration::from_secs(60 * minute),
        wall: Duration::from_secs(1_795_662_720 + 60 * minute),
        ..Default::default()
    }
}

fn text(minute: u64) -> String {
    format!("entry {minute}, {}", "accept-queue-overflow ".repeat(minute as usize % 3))
}

/// Where it lies, and the entries that it holds.
type Segment = (Range<usize>, Vec<u64>);

/// An entry a minute; where each segment lies, and which entries it holds.
fn index() -> (Vec<u8>, Vec<Segment>) {
    let mut writer = IndexWriter::new(Vec::new(), false);
    let mut segments: Vec<Segment> = Vec::new();
    for minute in 0..ENTRIES {
        let before = writer.out().len();
        writer.push(at(minute), text(minute).as_bytes()).unwrap();
        let grown = &writer.out()[before..];
        if let Some(head) = grown.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
            segments.push((before + head..0, Vec::new()));
        }
        segments.last_mut().unwrap().1.push(minute);
    }
    let bytes = writer.finish().unwrap();
    let ends: Vec<usize> = segments[1..].iter().map(|(place, _)| place.start).chain([bytes.len()]).collect();
    segments.iter_mut().zip(ends).for_each(|((place, _), end)| place.end = end);
    (bytes, segments)
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    entries: Vec<u64>,
    /// After which entry, and the bytes.
    holes: Vec<(usize, Range<u64>)>,
    end: Option<String>,
    cut: bool,
}

impl Read {
    fn is_whole(&self) -> bool {
        self.holes.is_empty() && self.end.is_none() && !self.cut
    }
}

/// Each entry has to be as it was written.
fn read(input: impl io::Read + Seek) -> Read {
    let mut read = Read::default();
    let end = pieces(Content::Index, input, &mut |piece| {
        match piece {
            Piece::Frame { times, answers, bytes, .. } => {
                let minute = (times.at.mono.as_secs()) / 60;
                let said = answers[0].1.parts(bytes).collect::<Vec<_>>().concat();
                assert_eq!((times.at, said), (at(minute), text(minute).into_bytes()));
                read.entries.push(minute);
            }
            Piece::Hole(hole) => read.holes.push((read.entries.len(), hole.from..hole.until)),
        }
        Ok(())
    });
    match end {
        Ok(cut) => read.cut = cut.is_some(),
        Err(problem) => read.end = Some(problem.plain()),
    }
    assert!(read.entries.is_sorted_by(|a, b| a < b), "{:?}", read.entries);
    read
}

/// Nothing is missing but entries of the segments that these bytes are in, and that it may be is said.
fn loses_no_more(damaged: &[u8], segments: &[Segment], touched: &[Range<usize>]) {
    assert!(!keeps_the_others(damaged, segments, touched).is_whole(), "{touched:?}: not noticed");
}

/// What was read, with all entries of the segments that none of these bytes are in.
fn keeps_the_others(damaged: &[u8], segments: &[Segment], touched: &[Range<usize>]) -> Read {
    let read = read(Cursor::new(damaged));
    let is_touched = |place: &Range<usize>| touched.iter().any(|own| own.start < place.end && place.start < own.end);
    let whole: BTreeSet<u64> =
        segments.iter().filter(|(place, _)| !is_touched(place)).flat_map(|(_, entries)| entries.clone()).collect();
    let lost: Vec<u64> = whole.into_iter().filter(|minute| !read.entries.contains(minute)).collect();
    assert!(lost.is_empty(), "{touched:?}: {lost:?} lost of {read:?}");
    read
}

#[test]
fn a_new_segment_begins_every_few_minutes() {
    let (bytes, segments) = index();
    let entries: Vec<usize> = segments.iter().map(|(_, entries)| entries.len()).collect();
    assert!(entries.len() > 2 && entries.iter().all(|count| (1..=5).contains(count)), "{entries:?}");
    let read = read(Cursor::new(&bytes));
    assert!(read.is_whole() && read.entries == (0..ENTRIES).collect::<Vec<_>>(), "{read:?}");
}

#[test]
fn a_byte_costs_no_more_than_its_segment() {
    let (bytes, segments) = index();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            loses_no_more(&damaged, &segments, std::slice::from_ref(&(at..at + 1)));
        }
    }
}

/// The first head names the recording, and whoever lost it reads the rest all the same.
#[test]
fn what_is_left_out_is_said_by_its_bytes() {
    let (bytes, segments) = index();
    let second = &segments[1];
    let mut damaged = bytes.clone();
    damaged[3] ^= 1;
    let first = read(Cursor::new(&damaged));
    assert_eq!((first.entries[0], first.holes), (second.1[0], vec![(0, 0..second.0.start as u64)]));
    assert_eq!(first.end, None);
    let mut damaged = bytes.clone();
    damaged[second.0.start + 3] ^= 1;
    let middle = read(Cursor::new(&damaged));
    let holes = vec![(segments[0].1.len(), second.0.start as u64..second.0.end as u64)];
    assert_eq!((middle.holes, middle.end), (holes, None));
}

/// What is missing as a whole left no damaged byte behind.
#[test]
fn a_missing_segment_costs_no_other() {
    let (bytes, segments) = index();
    for (place, entries) in &segments[1..segments.len() - 1] {
        let rest = [&bytes[..place.start], &bytes[place.end..]].concat();
        let read = read(Cursor::new(&rest));
        let kept: Vec<u64> = (0..ENTRIES).filter(|minute| !entries.contains(minute)).collect();
        assert_eq!((read.entries, read.end, read.cut), (kept, None, false));
        let start = place.start as u64;
        assert_eq!(read.holes, [(entries[0] as usize, start..start)]);
    }
    let (second, last) = (segments[1].0.start, segments.last().unwrap().0.start);
    let mut said = String::new();
    let rest = [&bytes[..second], &bytes[last..]].concat();
    pieces(Content::Index, Cursor::new(&rest), &mut |piece| {
        if let Piece::Hole(hole) = piece {
            said = hole.to_string();
        }
        Ok(())
    })
    .unwrap();
    assert!(said.ends_with("what was written before it is missing"), "{said}");
}

/// Then a whole head lies where something else was expected.
#[test]
fn what_is_missing_up_to_a_segment_costs_no_more_than_its_own() {
    let (bytes, segments) = index();
    for (until, from) in segments[1..].iter().flat_map(|(place, _)| (1..place.start).map(|from| (place.start, from))) {
        let rest = [&bytes[..from], &bytes[until..]].concat();
        keeps_the_others(&rest, &segments, std::slice::from_ref(&(from..until)));
    }
}

proptest! {
    #[test]
    fn two_places_cost_no_more_than_theirs(first in 0_usize..10_000, second in 0_usize..10_000, flips in (1_u8.., 1_u8..)) {
        let (mut bytes, segments) = index();
        let places = [first % bytes.len(), second % bytes.len()];
        prop_assume!(places[0] != places[1]);
        bytes[places[0]] ^= flips.0;
        bytes[places[1]] ^= flips.1;
        loses_no_more(&bytes, &segments, &places.map(|at| at..at + 1));
    }

    /// Blocks that never reached the disk, and what a repair of the file system leaves out.
    #[test]
    fn zeros_and_missing_bytes_cost_no_more_than_theirs(from in 0_usize..10_000, length in 1_usize..600, gone: bool) {
        let (mut bytes, segments) = index();
        let from = from % bytes.len();
        let until = (from + length).min(bytes.len());
        let sound = bytes.clone();
        match gone {
            true => drop(bytes.drain(from..until)),
            false => bytes[from..until].fill(0),
        }
        prop_assume!(bytes != sound && !sound.starts_with(&bytes));
        let touched = from..until;
        let read = keeps_the_others(&bytes, &segments, std::slice::from_ref(&touched));
        // As many bytes as whole segments have: the head of one with what is behind a later one is a sound segment, and what a
        // file can tell is a time that was not recorded.
        let bounds = || segments.iter().map(|(place, _)| place.start).chain([sound.len()]);
        let joined = gone && bounds().any(|from| bounds().any(|until| from + touched.len() == until));
        prop_assert!(joined || !read.is_whole(), "{touched:?}: not noticed");
    }
}

/// Who was killed, or lost power, left no damage.
#[test]
fn a_file_that_grows_is_cut_and_has_no_hole() {
    let (bytes, segments) = index();
    let head = segments[0].0.start + SEGMENT_HEAD + 200;
    for length in head..bytes.len() {
        for zeros in [0, 5_000] {
            let read = read(Cursor::new([&bytes[..length], &vec![0; zeros]].concat()));
            assert!(read.holes.is_empty() && read.end.is_none() && read.cut, "{length}+{zeros}: {read:?}");
        }
    }
}

/// Counts what is read of it.
struct Counted<'a>(Cursor<Vec<u8>>, &'a mut u64);

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        *self.1 += read as u64;
        Ok(read)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// What was made to be read again and again is given up: each head promises all the rest of the file.
#[test]
fn a_hostile_file_is_read_a_few_times_at_most() {
    let (bytes, segments) = index();
    let known = &bytes[..segments[0].0.end];
    let (size, own) = (4 << 20, segments[1].0.start);
    let named = u32::from_le_bytes(known[16..20].try_into().unwrap()) as usize;
    let name = known[SEGMENT_HEAD..SEGMENT_HEAD + named].to_vec();
    let head = |number| SegmentHead::new(Content::Index, number, &name).encode().to_vec();
    let frame = |rest: usize| {
        let tag = Tag::Frame(FrameKind::Entry);
        FrameHead { tag, number: 0, packed: rest as u32, unpacked: 100, checksum: 7 }.encode().to_vec()
    };
    let magic = |_: u32, _: usize| MAGIC.to_vec();
    let heads = |number: u32, _: usize| head(number);
    let segments = |number: u32, rest: usize| [head(number), name.clone(), frame(rest)].concat();
    let hostile: [&dyn Fn(u32, usize) -> Vec<u8>; 3] = [&magic, &heads, &segments];
    for make in hostile {
        let mut file = known.to_vec();
        let mut number = 1;
        while file.len() < own + size {
            file.extend(make(number, own + size - file.len()));
            number += 1;
        }
        let (mut work, length) = (0, file.len() as u64);
        let read = read(Counted(Cursor::new(file), &mut work));
        assert!(read.entries.starts_with(&[0]) && !read.is_whole());
        // The last of them may be as long as the file.
        assert!(work <= (TIMES + 1) * length + FREE + (64 << 10), "{work} bytes read of {length}");
    }
}

/// A head that promises much, and is not true, does not widen what may be unpacked.
#[test]
fn what_is_not_sound_allows_nothing() {
    let mut encoder = Encoder::of(Content::Index, Vec::new(), Compression::best());
    encoder.begin(FrameKind::Entry, &Times::new(Frame::Before, at(0)), || manifest(false, at(0))).unwrap();
    assert!(encoder.answer("host/entry").unwrap());
    let mut part = Part::default();
    (0..40).for_each(|_| encoder.push(&mut part, &vec![0; 1 << 20]).unwrap());
    encoder.close(part, None).unwrap();
    let large = encoder.finish().unwrap();
    let name = &large[SEGMENT_HEAD..SEGMENT_HEAD + u32::from_le_bytes(large[16..20].try_into().unwrap()) as usize];
    let tag = Tag::Frame(FrameKind::Entry);
    let promise = FrameHead { tag, number: 0, packed: u32::MAX, unpacked: 100, checksum: 7 }.encode();
    let segment = |number, rest: &[u8]| [&SegmentHead::new(Content::Index, number, name).encode(), name, rest].concat();
    let mut file = segment(0, &promise);
    (1..9).for_each(|number| file.extend(segment(number, &large[SEGMENT_HEAD + name.len()..])));
    let mut unpacked = 0;
    let end = pieces(Content::Index, Cursor::new(&file), &mut |piece| {
        if let Piece::Frame { bytes, .. } = piece {
            unpacked += bytes.len() as u64;
        }
        Ok(())
    });
    assert!(matches!(end, Err(RecordingProblem::TooLarge { .. })), "{end:?}");
    let allowed = (128 << 20) + 256 * file.len() as u64;
    assert!(unpacked > 0 && unpacked <= allowed, "{unpacked} of {allowed}");
}
