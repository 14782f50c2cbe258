//! Recordings that were cut off: read as far as they can be judged, and never taken for whole ones.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rstdoctor::diagnosis::diagnose;
use rstdoctor::recording::{RecordError, RecordingFile, RecordingHost, RecordingProblem, ReplayHost};
use rstdoctor::render::json;
use rstdoctor::session::{Plan, observe};

use super::{Script, fixture, open};
use crate::common::forge::{self, AFTER, END, POLL, TICK, segment};

/// A recorded fault of which every fifth poll is a tick with all counters.
fn with_ticks() -> &'static [u8] {
    static RECORDING: OnceLock<Vec<u8>> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let (mut frames, _) = forge::unpack(&fixture("close-with-unread-data"));
        let (_, after) = frames.last().expect("a closing snapshot").clone();
        for (tag, frame) in frames.iter_mut().step_by(5).filter(|(tag, _)| *tag == POLL) {
            let counters = after[40..].windows(4).position(|bytes| bytes == b"snmp").expect("counters");
            assert!(counters > 0);
            *tag = TICK;
            frame.truncate(40);
            frame.extend_from_slice(&after[40..]);
        }
        forge::pack(&frames)
    })
}

fn judged(mut recording: ReplayHost) -> String {
    let plan = Plan::scan(recording.windows().first().expect("a window").planned);
    let diagnosis = diagnose(observe(&mut recording, &plan).expect("a window").view().expect("a namespace"));
    serde_json::to_string(&json::report(&diagnosis)).expect("JSON")
}

/// Every byte around the beginnings of the first frames, of the first ticks and of the end; others here and there.
fn lengths(places: &[usize]) -> impl Iterator<Item = usize> + use<'_> {
    let end = places.last().expect("an end") + 24;
    let near =
        move |length: usize| places.iter().step_by(4).any(|place| place.abs_diff(length) < 3) || length + 30 > end;
    (0..end).filter(move |length| length % 499 == 0 || near(*length) || *length < 40)
}

#[test]
fn cut_at_any_byte_it_is_judged_up_to_its_last_tick_or_refused() {
    let bytes = with_ticks();
    let (frames, places) = forge::unpack(bytes);
    let tick_ends: Vec<usize> =
        frames.iter().zip(&places[1..]).filter(|((tag, _), _)| *tag == TICK).map(|(_, end)| *end).collect();
    assert!(tick_ends.len() > 3);
    let whole = open(bytes).expect("sound");
    assert_eq!((whole.cut(), whole.windows().len()), (None, 1));
    let (mut refused, mut read) = (0, 0);
    for length in lengths(&places) {
        let ticks = tick_ends.iter().filter(|end| **end <= length).count();
        match open(&bytes[..length]) {
            Ok(recording) => {
                let cut = recording.cut().unwrap_or_else(|| panic!("{length} bytes are presented as whole"));
                assert!(ticks > 0, "{length} bytes: there is no window to judge");
                assert_eq!(cut.frames, places[1..].iter().filter(|end| **end <= length).count() as u64);
                assert!(cut.place.byte <= length as u64);
                read += 1;
            }
            Err(problem) => {
                assert_eq!(ticks, 0, "{length} bytes hold a window: {problem}");
                let kinds = matches!(problem, RecordingProblem::Truncated(_));
                assert!(kinds || (length == 0 && matches!(problem, RecordingProblem::Foreign)), "{length}: {problem}");
                refused += 1;
            }
        }
    }
    assert!(refused > 50 && read > 50, "{refused} refused, {read} read");
}

#[test]
fn what_is_left_is_judged_as_if_it_had_been_interrupted_there() {
    let bytes = with_ticks();
    let (frames, places) = forge::unpack(bytes);
    for (number, (tag, frame)) in frames.iter().enumerate().filter(|(_, (tag, _))| *tag == TICK) {
        // Closed by hand: the same frames, and the tick as the closing snapshot.
        let mut closed = frames[..number].to_vec();
        closed.push((AFTER, frame.clone()));
        let by_hand = judged(open(&forge::pack(&closed)).expect("sound"));
        for length in [places[number + 1], places[number + 1] + 1, places[number + 2] - 1] {
            assert_eq!(judged(open(&bytes[..length]).expect("readable")), by_hand, "{tag} {number}, {length} bytes");
        }
    }
}

#[test]
fn cut_behind_the_last_snapshot_all_is_judged_and_the_cut_is_told() {
    let bytes = fixture("close-with-unread-data");
    let cut = open(&bytes[..bytes.len() - 1]).expect("all frames are there");
    assert!(cut.cut().is_some());
    assert_eq!(judged(cut), judged(open(&bytes).expect("sound")));
}

#[test]
fn a_cut_between_segments_is_noticed_and_an_appended_segment_is_read() {
    let (frames, _) = forge::unpack(with_ticks());
    let (first, second) = frames.split_at(frames.len() / 2);
    let parts = [segment(0, forge::MANIFEST, first, forge::CONTINUED), segment(1, forge::MANIFEST, second, END)];
    let both = open(&parts.concat()).expect("sound");
    assert_eq!(both.cut(), None);
    assert_eq!(judged(both), judged(open(with_ticks()).expect("sound")));
    let cut = open(&parts[0]).expect("readable").cut().expect("noticed");
    assert_eq!((cut.frames, cut.place.segment), (first.len() as u64, 1));
    // It was whole once, and then more came.
    let appended = [segment(0, forge::MANIFEST, first, END), parts[1].clone()].concat();
    assert_eq!(open(&appended).expect("sound").cut(), None);
}

#[test]
fn a_file_has_a_name_once_it_can_be_judged() {
    let directory = tempfile::tempdir().expect("tempdir");
    let target = directory.path().join("out.rst");
    let names = || {
        let list = std::fs::read_dir(directory.path()).expect("list");
        list.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect::<Vec<_>>()
    };
    drop(RecordingFile::create(&target).expect("new"));
    assert!(names().is_empty(), "dropped: {:?}", names());

    let file = RecordingFile::create(&target).expect("new");
    let mut host = RecordingHost::new(Script { frames: 0, sweep: 1 }, file, false);
    super::observe(&mut host);
    assert!(names().is_empty(), "without counters at its end there is nothing to judge: {:?}", names());
    host.finish().expect("written").persist().expect("named");
    assert_eq!(names(), ["out.rst"]);
    assert_eq!(std::fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o600);
    ReplayHost::open(&target).expect("sound");

    let refused = RecordingFile::create(&target).expect_err("exists");
    assert!(matches!(refused, RecordError::Exists { .. }), "{refused}");
    assert!(refused.to_string().contains("exists already"));
    assert!(matches!(RecordingFile::create("/dev/null".as_ref()), Err(RecordError::NotAFile { .. })));

    let late = RecordingFile::create(&directory.path().join("late")).expect("new");
    std::fs::write(directory.path().join("late"), "someone else").expect("written");
    assert!(matches!(late.persist().expect_err("appeared meanwhile"), RecordError::Exists { .. }));
    assert_eq!(std::fs::read(directory.path().join("late")).expect("there"), b"someone else");

    // Planted links are not followed, neither before nor meanwhile.
    let (planted, victim) = (directory.path().join("planted"), directory.path().join("victim"));
    let early = RecordingFile::create(&planted).expect("new");
    symlink(&victim, &planted).expect("link");
    assert!(early.persist().is_err());
    assert!(RecordingFile::create(&planted).is_err());
    assert!(!victim.exists());
}

/// Kills the program with each signal, soon after the file has its name and at other moments before.
#[test]
fn killed_at_any_time_nothing_is_left_or_what_is_left_can_be_judged() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (mut nothing, mut readable) = (0, 0);
    for (number, signal) in
        [libc::SIGHUP, libc::SIGKILL, libc::SIGQUIT, libc::SIGXFSZ].into_iter().cycle().take(12).enumerate()
    {
        let own = directory.path().join(number.to_string());
        std::fs::create_dir(&own).expect("a directory");
        let file = own.join("x.rst");
        let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["record", "--this-netns", "-d", "20s", "-i", "100ms", "-o"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("rstdoctor");
        let start = Instant::now();
        let early = number % 3 == 0;
        while !early && !file.exists() && start.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(37 * number as u64));
        // SAFETY: a process of our own.
        unsafe { libc::kill(child.id() as i32, signal) };
        let status = child.wait().expect("a status");
        let names: Vec<_> = std::fs::read_dir(&own).expect("list").map(|it| it.expect("entry").file_name()).collect();
        if !file.exists() {
            assert!(names.is_empty(), "{names:?}");
            nothing += 1;
            continue;
        }
        assert_eq!(names, ["x.rst"]);
        let (code, errors) = scan(&file);
        assert_eq!(code, Some(0), "{signal} {status}: {errors}");
        if status.signal().is_some() {
            assert!(errors.contains("cut off"), "{errors}");
        }
        readable += 1;
    }
    assert!(readable >= 8 && readable + nothing == 12, "{nothing} without a file, {readable} readable");
}

fn scan(file: &Path) -> (Option<i32>, String) {
    let mut scan = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    let output = scan.args(["scan", "--from"]).arg(file).output().expect("rstdoctor");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
