//! A small recording of the running kernel, cut off at every byte, and with zeros from every byte on as after a power cut: of
//! what is left only whole frames are used, and that it is not whole is said.

use std::sync::Arc;
use std::time::Duration;

use rstdoctor::ask::{Ask, Clock, Frame, Host, Probe, What};
use rstdoctor::kernel::LiveHost;
use rstdoctor::recording::{RecordingHost, RecordingProblem};
use rstdoctor::value::Moment;

use super::open;
use crate::common::forge::{self, AFTER, CONTINUED, END, TICK, segment};

const MS: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_millis(9);

fn frames() -> [Frame; 7] {
    let tick = |due| Frame::Tick { due: due * MS, end: WINDOW };
    let poll = |due| Frame::Poll { due: due * MS, end: WINDOW };
    [Frame::Dump, Frame::Before, tick(1), poll(2), tick(3), tick(5), Frame::After { end: WINDOW }]
}

fn counters() -> Ask {
    Ask::host(What::File("/proc/net/snmp".to_owned()))
}

/// In two segments; the frames, and where each ends.
fn recorded() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut host = RecordingHost::new(LiveHost::new(Arc::default()), Vec::new(), false);
    for frame in frames() {
        host.frame(frame).expect("in time");
        host.ask(&counters(), &mut |_| {}).result.expect("counters");
    }
    let (frames, _) = forge::unpack(&host.finish().expect("in memory"));
    let (first, second) = frames.split_at(4);
    let bytes = [segment(0, forge::MANIFEST, first, CONTINUED), segment(1, forge::MANIFEST, second, END)].concat();
    let (frames, places) = forge::unpack(&bytes);
    // Behind the frames of a segment stands its end.
    let ends = [&places[1..5], &places[6..9]].concat();
    (bytes, frames.iter().map(|(tag, _)| *tag).zip(ends).collect())
}

/// What a replay gives, frame by frame.
fn replayed(host: &mut dyn Host) -> Vec<(Moment, Vec<u8>)> {
    let mut seen = Vec::new();
    while let Some(at) = frames().into_iter().find_map(|frame| host.frame(frame)) {
        let mut bytes = Vec::new();
        host.ask(&counters(), &mut |part| bytes.extend_from_slice(part)).result.expect("counters");
        seen.push((at, bytes));
    }
    seen
}

#[test]
fn cut_or_zero_from_any_byte_on_whole_frames_remain_and_that_is_said() {
    let (bytes, ends) = recorded();
    assert_eq!(ends.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2, TICK, 3, TICK, TICK, AFTER]);
    let whole = replayed(&mut open(&bytes).expect("sound"));
    assert_eq!(whole.len(), 7);
    let (mut refused, mut read) = (0, 0);
    for length in 0..bytes.len() {
        // Up to its old end, less, more, and to the end of a block of the disk.
        for zeros in [0, 1, bytes.len() - length, 9000] {
            let damaged = [&bytes[..length], &vec![0; zeros]].concat();
            // Zeros that were there before.
            if damaged.starts_with(&bytes) {
                continue;
            }
            let kept = ends.iter().filter(|(_, end)| damaged.starts_with(&bytes[..*end])).count();
            let closes = |(tag, _): &(u32, usize)| matches!(*tag, TICK | AFTER);
            let judged = ends[..kept].iter().rposition(closes).map_or(0, |last| last + 1);
            match open(&damaged) {
                Ok(mut recording) => {
                    let cut = recording.cut().unwrap_or_else(|| panic!("{length}+{zeros} is presented as whole"));
                    assert_eq!(cut.frames, kept as u64, "{length}+{zeros}");
                    assert!(judged > 0 && replayed(&mut recording) == whole[..judged], "{length}+{zeros}");
                    read += 1;
                }
                Err(problem) => {
                    assert_eq!(judged, 0, "{length}+{zeros} holds a window: {problem}");
                    let foreign = length < 8 && matches!(problem, RecordingProblem::Foreign);
                    assert!(
                        foreign || matches!(problem, RecordingProblem::Truncated(_)),
                        "{length}+{zeros}: {problem}"
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000 && read > 300, "{refused} refused, {read} read of {} bytes", bytes.len());
}

#[test]
fn zeros_with_something_behind_them_are_damage() {
    let (bytes, ends) = recorded();
    for (_, end) in &ends[2..5] {
        let mut holed = bytes.clone();
        holed[end - 20..*end].fill(0);
        assert!(matches!(open(&holed), Err(RecordingProblem::Damaged { .. })), "{end}");
    }
}
