//! Files that are no recordings, or that were made to do harm.

use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use rstdoctor::recording::{RecordingProblem, ReplayHost};

use super::{open, recording};
use crate::common::forge::{
    self, AFTER, BEFORE, CONTINUED, DUMP, END, Frame, MANIFEST, POLL, TICK, answer, frame_head, pack, segment,
    segment_head, times,
};

const SECOND: u64 = 1_000_000_000;

fn refused(bytes: &[u8]) -> RecordingProblem {
    match open(bytes) {
        Err(problem) => problem,
        Ok(recording) => panic!("taken for a recording: {:?}", recording.windows()),
    }
}

fn is_unsafe(bytes: &[u8], why: &str) {
    let problem = refused(bytes);
    assert!(matches!(problem, RecordingProblem::Unsafe { .. }) && problem.to_string().contains(why), "{problem}");
}

fn frame(tag: u32, due: u64, end: u64, mono: u64, answers: &[Vec<u8>]) -> Frame {
    (tag, [times(due, end, mono, mono, 0), answers.concat()].concat())
}

/// A window of 2 s without an answer.
fn window() -> Vec<Frame> {
    vec![
        frame(DUMP, 0, 0, SECOND, &[]),
        frame(BEFORE, 0, 0, 2 * SECOND, &[]),
        frame(POLL, SECOND, 2 * SECOND, 3 * SECOND, &[]),
        frame(AFTER, 2 * SECOND, 2 * SECOND, 4 * SECOND, &[]),
    ]
}

fn changed(change: impl FnOnce(&mut Vec<Frame>)) -> Vec<u8> {
    let mut frames = window();
    change(&mut frames);
    pack(&frames)
}

fn with_answer(bytes: &[u8]) -> Vec<u8> {
    changed(|frames| frames[0].1.extend_from_slice(bytes))
}

#[test]
fn the_forge_makes_what_is_read() {
    let recording = open(&pack(&window())).expect("sound");
    let [window] = recording.windows() else { panic!("one window") };
    assert_eq!((window.length, window.planned, window.polls), (Duration::from_secs(2), Duration::from_secs(2), 1));
    let bytes = super::recording(false, 600);
    let (frames, _) = forge::unpack(&bytes);
    assert_eq!(frames.len(), 4);
    open(&pack(&frames)).expect("sound");
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (bytes, step) in [(recording(false, 2), 1), (super::fixture("close-with-unread-data"), 97)] {
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn damage_is_told_with_its_place() {
    let bytes = super::fixture("close-with-unread-data");
    let (_, places) = forge::unpack(&bytes);
    for (number, at) in places.iter().enumerate().step_by(7).take(5) {
        for offset in [at + 9, at + 30] {
            let mut flipped = bytes.clone();
            flipped[offset] ^= 4;
            let text = refused(&flipped).to_string();
            assert!(text.contains(&format!("segment 0, frame {number} (byte {at})")), "{text}");
        }
    }
}

#[test]
fn other_files_are_told_apart() {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3];
    for bytes in
        [&b""[..], b"Tcp: 1 2 3\n", &gzip, &[0; 4096], &[0x89; 40], b"\x89PNG\r\n\x1a\n and a picture behind it"]
    {
        let problem = refused(bytes);
        assert!(matches!(problem, RecordingProblem::Foreign), "{problem}");
        assert!(problem.to_string().contains("rstdoctor record -o FILE"));
    }
    let mut newer = segment_head(2, 7, 0, b"another shape");
    newer.truncate(32);
    let problem = refused(&newer);
    assert!(matches!(problem, RecordingProblem::NewerFormat { version: 2 }), "{problem}");
    assert!(problem.to_string().contains("use a newer one"));
    is_unsafe(&segment_head(1, 3, 0, MANIFEST), "unknown kind");
    assert!(refused(&segment_head(1, 2, 0, MANIFEST)).to_string().contains("rstdoctor history --store"));
    is_unsafe(&segment_head(0, 1, 0, MANIFEST), "unknown kind");
    is_unsafe(&segment_head(1, 1, 0, b"{}"), "manifest");
    is_unsafe(&segment_head(1, 1, 0, "[".repeat(60_000).as_bytes()), "manifest");
    assert!(matches!(refused(&segment_head(1, 1, 3, MANIFEST)), RecordingProblem::Damaged { .. }));
    let long = " ".repeat(65_537);
    assert!(matches!(refused(&segment_head(1, 1, 0, long.as_bytes())), RecordingProblem::TooLarge { .. }));
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let bytes = pack(&window());
    for behind in [&b"x"[..], &[0], &[0; 4096], b"\x89PNG\r\n\x1a\n"] {
        let problem = refused(&[&bytes, behind].concat());
        assert!(matches!(problem, RecordingProblem::TrailingGarbage { .. }), "{problem}");
    }
    // A second recording is none of its segments, and neither is a segment of another one.
    assert!(matches!(refused(&[&bytes[..], &bytes].concat()), RecordingProblem::Damaged { .. }));
    let other = MANIFEST.to_ascii_lowercase();
    is_unsafe(&[bytes, segment(1, &other, &[], END)].concat(), "another recording");
}

#[test]
fn only_known_keys_are_taken() {
    for key in [
        "file/proc/net/snmp",
        "host/file/etc/passwd",
        "ns/file/proc/net/snmp",
        "ns/01/file/proc/net/snmp",
        "ns/-1/file/proc/net/snmp",
        "host/last_words",
        "host/file/proc/../etc/passwd",
        "host/file/proc//net",
        "host/file/proc/./net",
        "host/file/proc/",
        "host/link/etc/x",
        "../x",
        "/file/proc/x",
        "host/file/proc/\x1b[2J",
        "host/file/proc/\u{202e}",
        "host/file/proc/ä",
        "host/file/proc/a\\b",
        "manifest.json",
        "host/socket_owners/..",
        "",
    ] {
        is_unsafe(&with_answer(&answer(key, &[])), "never asked");
    }
    is_unsafe(&with_answer(&answer(&format!("host/file/proc/{}", "a".repeat(300)), &[])), "never asked");
    open(&with_answer(&answer("host/file/proc/sys/net/ipv4/conf/eth0.1/rp_filter", &[]))).expect("a plain name");
}

#[test]
fn answers_keep_to_their_lengths() {
    let good = answer("host/file/proc/net/snmp", &[b"Tcp: 1"]);
    open(&with_answer(&good)).expect("sound");
    for length in 1..good.len() {
        is_unsafe(&with_answer(&good[..length]), "ends before its length says");
    }
    let mut long = good.clone();
    let at = 2 + "host/file/proc/net/snmp".len();
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    is_unsafe(&with_answer(&long), "ends before");
    let mut failure = good;
    *failure.last_mut().expect("its outcome") = 9;
    is_unsafe(&with_answer(&failure), "failure of an unknown kind");
    is_unsafe(&changed(|frames| frames[0].1.truncate(39)), "without times");
}

#[test]
fn frames_come_in_an_order_in_which_they_are_made() {
    const ORDER: &str = "order in which none are made";
    is_unsafe(&changed(|frames| frames[0].0 = BEFORE), ORDER);
    is_unsafe(&changed(|frames| frames[1].0 = POLL), ORDER);
    is_unsafe(&changed(|frames| frames[1].0 = AFTER), ORDER);
    is_unsafe(&changed(|frames| frames[2].0 = DUMP), ORDER);
    // Entries are frames of a store's index.
    is_unsafe(&changed(|frames| frames[2].0 = 6), ORDER);
    // An opening begins a segment, and not the first.
    is_unsafe(&changed(|frames| frames[2].0 = 7), ORDER);
    is_unsafe(&changed(|frames| frames[0].0 = 7), ORDER);
    is_unsafe(&changed(|frames| frames[2].0 = 8), "unknown kind");
    is_unsafe(&changed(|frames| frames[2].0 = 0), "unknown kind");
    let mut swapped = segment_head(1, 1, 0, MANIFEST);
    swapped.extend(frame_head(DUMP, 1, b"x", 1));
    swapped.push(b'x');
    assert!(matches!(refused(&swapped), RecordingProblem::Damaged { .. }));
    let mut filled = segment_head(1, 1, 0, MANIFEST);
    filled.extend(frame_head(END, 0, b"x", 1));
    is_unsafe(&filled, "end of a segment");
}

#[test]
fn windows_run_forward() {
    let at = |frame: usize, field: usize, value: u64| {
        changed(|frames| frames[frame].1[field * 8..field * 8 + 8].copy_from_slice(&value.to_le_bytes()))
    };
    const BACK: &str = "before the frame before it";
    is_unsafe(&at(3, 2, 2 * SECOND - 1), BACK);
    is_unsafe(&at(0, 2, 9 * SECOND), BACK);
    is_unsafe(&at(3, 2, u64::MAX), "no machine has been up");
    is_unsafe(&at(3, 4, u64::MAX), "no machine has been up");
    // Asleep for all of the window, and for more than that.
    open(&at(3, 4, SECOND)).expect("sound");
    is_unsafe(&at(3, 4, 3 * SECOND), BACK);
    is_unsafe(&at(3, 1, 0), "no length");
    open(&at(3, 1, u64::MAX)).expect("interrupted");
    open(&at(3, 3, u64::MAX)).expect("a clock that is wrong");
}

#[test]
fn packed_bytes_are_not_believed() {
    let body = |packed: &[u8], unpacked: u32| {
        let mut bytes = segment_head(1, 1, 0, MANIFEST);
        bytes.extend(frame_head(DUMP, 0, packed, unpacked));
        bytes.extend_from_slice(packed);
        bytes.extend(frame_head(END, 1, &[], 0));
        bytes
    };
    let deflated = |flush| {
        let mut packed = Vec::with_capacity(1024);
        Compress::new(Compression::best(), false).compress_vec(&[0; 40], &mut packed, flush).expect("memory");
        packed
    };
    let packed = deflated(FlushCompress::Sync);
    is_unsafe(&body(&packed, 39), "longer than it says");
    is_unsafe(&body(&packed, 41), "cannot be unpacked");
    is_unsafe(&body(&[0xff; 64], 40), "cannot be unpacked");
    is_unsafe(&body(&[], 40), "cannot be unpacked");
    // A stream with a last block, and bytes behind it.
    is_unsafe(&body(&deflated(FlushCompress::Finish), 40), "cannot be unpacked");
    is_unsafe(&body(&[&deflated(FlushCompress::Finish)[..], b"behind"].concat(), 40), "cannot be unpacked");
    // Claims alone take no memory.
    let mut claimed = segment_head(1, 1, 0, MANIFEST);
    claimed.extend(frame_head(DUMP, 0, &packed, 97 << 20));
    assert!(matches!(refused(&claimed), RecordingProblem::TooLarge { .. }));
}

#[test]
fn bombs_are_refused() {
    let zeros = [times(0, 0, SECOND, 0, 0), answer("host/socket_owners", &[&vec![0; 60 << 20]])].concat();
    let problem = refused(&pack(&[(DUMP, zeros.clone()), (BEFORE, zeros.clone()), (POLL, zeros)]));
    assert!(matches!(problem, RecordingProblem::TooLarge { .. }), "{problem}");
    let many = answer("host/socket_owners", &[]).repeat(200_001);
    is_unsafe(&with_answer(&many), "more answers");
}

#[test]
fn many_small_frames_cost_little() {
    let frames = |count: u64, tag: u32| {
        let mut frames = window();
        frames.truncate(2);
        let snmp = answer("host/file/proc/net/snmp", &[]);
        frames.extend((0..count).map(|n| frame(tag, n, 2 * SECOND, 2 * SECOND + n, std::slice::from_ref(&snmp))));
        frames.push(frame(AFTER, 2 * SECOND, 2 * SECOND, 4 * SECOND, &[]));
        pack(&frames)
    };
    for tag in [POLL, TICK] {
        open(&frames(20_000, tag)).expect("sound");
    }
    let mut windows = Vec::new();
    for n in 0..5_000 {
        windows.push(frame(BEFORE, 0, 0, 2 * n * SECOND, &[]));
        windows.push(frame(AFTER, SECOND, SECOND, (2 * n + 1) * SECOND, &[]));
    }
    assert_eq!(open(&pack(&windows)).expect("sound").windows().len(), 5_000);
    let segments: Vec<Vec<u8>> = (0..5_000).map(|number| segment(number, MANIFEST, &[], CONTINUED)).collect();
    assert!(matches!(refused(&segments.concat()), RecordingProblem::Truncated(_)));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        proptest::prop_assert!(ReplayHost::read(&bytes).is_err());
        let behind = [segment_head(1, 1, 0, MANIFEST), bytes.clone()].concat();
        proptest::prop_assert!(ReplayHost::read(&behind).is_err());
        proptest::prop_assert!(ReplayHost::read(&with_answer(&bytes)).is_err() || bytes.is_empty());
    }

    /// Checksums guard against chance alone: what is made on purpose has good ones.
    #[test]
    fn arbitrary_contents_are_refused_or_replayed(frame in 0usize..4, at in 0usize..40_000, value: u8) {
        let (mut frames, _) = forge::unpack(&recording(false, 4));
        let bytes = &mut frames[frame].1;
        let length = bytes.len();
        bytes[at % length] = value;
        let _ = open(&pack(&frames)).map(|mut host| super::observe(&mut host));
    }
}
