//! Recordings: what was recorded is replayed, and nothing but a sound recording is accepted.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rstdoctor::ask::{Answer, Ask, Clock, DiagQuery, Frame, Host, Probe, What};
use rstdoctor::recording::read::RecordingProblem;
use rstdoctor::recording::write::RecordError;
use rstdoctor::recording::{RecordingFile, RecordingHost, ReplayHost};
use rstdoctor::value::{Failure, FailureKind, Moment, NetnsId};

const NETNS: NetnsId = NetnsId(4_026_531_840);

/// Answers from a script: netstat grows with each frame, the sweep is `sweep` messages of 4 KiB.
struct Script {
    frames: u64,
    sweep: usize,
}

const SWEEP: DiagQuery = DiagQuery { name: "sweep", states: 0xfff, extensions: 0 };

fn file(path: &str) -> Ask {
    Ask::host(What::File(path.to_owned()))
}

/// A socket without addresses, so that redaction leaves it alone.
fn message(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&4096u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
    bytes[16] = 2;
    bytes[80..88].copy_from_slice(&(number as u64).to_ne_bytes());
    bytes
}

impl Clock for Script {
    fn frame(&mut self, _: Frame) -> Option<Moment> {
        self.frames += 1;
        Some(Moment {
            mono: Duration::from_millis(1000 + 50 * self.frames),
            wall: Duration::from_millis(1_700_000_000_000 + 50 * self.frames),
            asleep: Duration::ZERO,
        })
    }
}

impl Probe for Script {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let result = match &ask.what {
            What::SockDiag(_) => {
                (0..self.sweep).for_each(|number| sink(&message(number)));
                Ok(())
            }
            What::File(path) if path == "/proc/net/netstat" => {
                sink(b"TcpExt: A\n");
                sink(format!("TcpExt: {}\n", self.frames).as_bytes());
                Ok(())
            }
            What::ResetEvents => {
                sink(&[1, 2, 3, 4]);
                Ok(())
            }
            _ => Err(Failure::new(FailureKind::Denied, format!("{}: permission denied", ask.key())).needs("root")),
        };
        Answer { result, took: Duration::from_millis(3) }
    }
}

const END: Duration = Duration::from_secs(2);

fn poll(due: u64) -> Frame {
    Frame::Poll { due: Duration::from_millis(due), end: END }
}

fn questions() -> Vec<Ask> {
    vec![
        file("/proc/net/netstat"),
        Ask::netns(NETNS, What::SockDiag(SWEEP)),
        file("/proc/1/limits"),
        Ask::host(What::ResetEvents),
        file("/proc/net/netstat"),
    ]
}

/// Everything that the host says over one window, in order.
fn observe(host: &mut dyn Host) -> Vec<(Option<Moment>, Vec<u8>, Option<Failure>)> {
    let mut seen = Vec::new();
    for frame in [Frame::Before, poll(50), poll(100), Frame::After { end: END }] {
        let at = host.frame(frame);
        for ask in questions() {
            let mut bytes = Vec::new();
            let answer = host.ask(&ask, &mut |chunk| bytes.extend_from_slice(chunk));
            seen.push((at, bytes, answer.result.err()));
        }
    }
    seen
}

fn recording(redact: bool, sweep: usize) -> Vec<u8> {
    let mut host = RecordingHost::new(Script { frames: 0, sweep }, Vec::new(), redact);
    observe(&mut host);
    host.finish().expect("recorded")
}

fn open(bytes: &[u8]) -> Result<ReplayHost, RecordingProblem> {
    ReplayHost::read(bytes).map_err(|error| error.problem)
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut tar).expect("gzip");
    tar
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).expect("memory");
    gzip.finish().expect("memory")
}

/// A recording with one more entry before its index, made by `change` from a plain header.
fn with_entry(change: impl Fn(&mut tar::Header)) -> Vec<u8> {
    let tar = unpacked(&recording(false, 1));
    let mut out = tar::Builder::new(Vec::new());
    let mut archive = tar::Archive::new(&tar[..]);
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("entry");
        if entry.path_bytes().as_ref() == b"end.json" {
            let mut header = tar::Header::new_ustar();
            header.set_path("frames/00000-before/extra").expect("short");
            header.set_size(0);
            change(&mut header);
            header.set_cksum();
            out.append(&header, std::io::empty()).expect("memory");
        }
        let header = entry.header().clone();
        out.append(&header, &mut entry).expect("memory");
    }
    packed(&out.into_inner().expect("memory"))
}

#[test]
fn a_replay_gives_what_was_recorded() {
    // 600 messages of 4 KiB need three parts.
    let live = observe(&mut Script { frames: 0, sweep: 600 });
    let bytes = recording(false, 600);
    let mut recording = open(&bytes).expect("sound");
    assert_eq!(observe(&mut recording), live);
    assert!(!recording.manifest().redacted);
    assert_eq!(recording.manifest().started_at, "2023-11-14T22:13:20.050000000Z");
    let [window] = recording.windows() else { panic!("one window: {:?}", recording.windows()) };
    assert_eq!((window.length, window.planned, window.polls), (Duration::from_millis(150), END, 2));
}

#[test]
fn no_message_is_cut_between_two_parts() {
    let mut recording = open(&recording(false, 600)).expect("sound");
    recording.frame(Frame::Before);
    let mut calls = 0;
    recording.ask(&Ask::netns(NETNS, What::SockDiag(SWEEP)), &mut |chunk| {
        calls += 1;
        assert_eq!(chunk.len() % 4096, 0);
        assert!(chunk.len() <= 1 << 20);
    });
    assert_eq!(calls, 3);
}

#[test]
fn the_recording_decides_which_frame_follows() {
    let mut recording = open(&recording(false, 0)).expect("sound");
    assert_eq!(recording.frame(poll(0)), None, "a recording starts with its first snapshot");
    assert!(recording.frame(Frame::Before).is_some());
    assert!(recording.frame(poll(9_999_999)).is_some());
    assert!(recording.frame(poll(0)).is_some());
    assert_eq!(recording.frame(poll(0)), None, "two polls were recorded");
    assert!(recording.frame(Frame::After { end: Duration::ZERO }).is_some());
    assert_eq!(recording.frame(Frame::Before), None);
}

#[test]
fn what_was_not_recorded_is_not_collected() {
    let mut recording = open(&recording(false, 0)).expect("sound");
    let before = recording.ask(&file("/proc/net/netstat"), &mut |_| panic!("no frame yet")).result.unwrap_err();
    assert_eq!(before.kind, FailureKind::NotCollected);
    recording.frame(Frame::Before);
    let failure = recording.ask(&file("/proc/net/other"), &mut |_| panic!("nothing to say")).result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotCollected);
    assert!(failure.reason.contains("not in this recording"), "{failure}");
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = recording(false, 3);
    for len in (0..bytes.len()).step_by(7).chain(bytes.len() - 12..bytes.len()) {
        let problem = open(&bytes[..len]).expect_err("cut off");
        assert!(
            matches!(problem, RecordingProblem::Truncated(_) | RecordingProblem::NotGzip | RecordingProblem::NotTar),
            "{len} of {}: {problem}",
            bytes.len()
        );
    }
    // Cut off between two entries and closed properly: only the missing index tells.
    let tar = unpacked(&bytes);
    let mut cut = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&tar[..]).entries().expect("tar").take(3) {
        let mut entry = entry.expect("entry");
        let header = entry.header().clone();
        cut.append(&header, &mut entry).expect("memory");
    }
    let problem = open(&packed(&cut.into_inner().expect("memory"))).expect_err("no index");
    assert!(matches!(problem, RecordingProblem::Truncated(_)), "{problem}");
}

#[test]
fn every_flipped_byte_of_the_data_is_noticed() {
    let bytes = recording(false, 4);
    let content = unpacked(&bytes);
    let mut refused = 0;
    // The first ten bytes are the gzip header, whose time and system fields mean nothing.
    for at in (10..bytes.len()).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        // In a run of zeros another match distance means the same, so not every flip is damage.
        let harmless = open(&flipped).is_ok();
        assert!(!harmless || unpacked(&flipped) == content, "byte {at} of {}", bytes.len());
        refused += usize::from(!harmless);
    }
    assert!(refused > bytes.len() / 3 / 2, "{refused} of {}", bytes.len() / 3);
}

#[test]
fn entries_that_a_recording_never_holds_are_refused() {
    use tar::EntryType;
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::GNUSparse,
    ] {
        let problem = open(&with_entry(|header| {
            header.set_entry_type(kind);
            header.set_link_name("/etc/passwd").expect("short");
        }))
        .expect_err("refused");
        assert!(matches!(problem, RecordingProblem::Unsafe { .. }), "{kind:?}: {problem}");
    }
    for name in ["../escape", "frames/../../escape", "/etc/escape", "a//b", "./a", "\x1b[31m"] {
        let problem = open(&with_entry(|header| {
            let field = &mut header.as_old_mut().name;
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
        }))
        .expect_err("refused");
        assert!(matches!(problem, RecordingProblem::Unsafe { .. }), "{name}: {problem}");
        assert!(!problem.to_string().contains('\x1b'), "escaped");
    }
    for name in ["manifest.json", "frames/00000-before/file/proc/net/netstat"] {
        let problem = open(&with_entry(|header| header.set_path(name).expect("short"))).expect_err("refused");
        assert!(matches!(problem, RecordingProblem::Duplicate { .. }), "{name}: {problem}");
    }
    let problem = open(&with_entry(|_| {})).expect_err("not in the index");
    assert!(matches!(problem, RecordingProblem::Damaged(_)), "{problem}");
}

#[test]
fn bombs_and_trailing_bytes_are_refused() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = tar::Header::new_ustar();
    header.set_path("manifest.json").expect("short");
    header.set_size(8 << 30);
    header.set_cksum();
    gzip.write_all(header.as_bytes()).expect("memory");
    let zeros = vec![0; 1 << 20];
    (0..4).for_each(|_| gzip.write_all(&zeros).expect("memory"));
    let problem = open(&gzip.finish().expect("memory")).expect_err("bomb");
    assert!(matches!(problem, RecordingProblem::TooLarge { .. }), "{problem}");

    let bytes = recording(false, 1);
    let behind_gzip = [&bytes[..], b"x"].concat();
    let second_member = [&bytes[..], &bytes[..]].concat();
    let behind_tar = packed(&[&unpacked(&bytes)[..], b"x"].concat());
    let long_padding = packed(&[&unpacked(&bytes)[..], &zeros].concat());
    for bytes in [behind_gzip, second_member, behind_tar, long_padding] {
        assert!(matches!(open(&bytes).expect_err("refused"), RecordingProblem::TrailingGarbage));
    }
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(open(b"").unwrap_err(), RecordingProblem::NotGzip));
    assert!(matches!(open(b"Tcp: 1 2 3\n").unwrap_err(), RecordingProblem::NotGzip));
    assert!(matches!(open(&packed(b"just some text")).unwrap_err(), RecordingProblem::NotTar));
    assert!(matches!(open(&packed(&[7; 4096])).unwrap_err(), RecordingProblem::NotTar));
    assert!(matches!(open(&packed(&[0; 4096])).unwrap_err(), RecordingProblem::Foreign(_)));
    let one = |name: &str, body: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("short");
        header.set_size(body.len() as u64);
        header.set_cksum();
        tar.append(&header, body).expect("memory");
        open(&packed(&tar.into_inner().expect("memory"))).unwrap_err()
    };
    assert!(matches!(one("README.md", b"hello"), RecordingProblem::Foreign(_)));
    assert!(matches!(one("manifest.json", b"{}"), RecordingProblem::Foreign(_)));
    assert!(matches!(one("manifest.json", br#"{"format":"other/v1"}"#), RecordingProblem::Foreign(_)));
    let newer = one("manifest.json", br#"{"format":"rstdoctor/recording/v2","shape":"unknown"}"#);
    assert!(matches!(newer, RecordingProblem::NewerFormat { .. }), "{newer}");
    assert!(newer.to_string().contains("newer rstdoctor"));
}

#[test]
fn an_error_names_the_file() {
    let missing = ReplayHost::open("/nonexistent/x.rstdoctor".as_ref()).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/x.rstdoctor: cannot be read: No such file"), "{missing}");
}

#[test]
fn redaction_leaves_out_what_it_cannot_judge() {
    let mut recording = open(&recording(true, 3)).expect("sound");
    assert!(recording.manifest().redacted);
    recording.frame(Frame::Before);
    let events =
        recording.ask(&Ask::host(What::ResetEvents), &mut |_| panic!("raw events name peers")).result.unwrap_err();
    assert_eq!(events.kind, FailureKind::Broken);
    assert!(events.reason.starts_with("left out by --redact"), "{}", events.reason);
    let mut bytes = 0;
    assert_eq!(
        recording.ask(&Ask::netns(NETNS, What::SockDiag(SWEEP)), &mut |chunk| bytes += chunk.len()).result,
        Ok(())
    );
    assert_eq!(bytes, 3 * 4096);
    let denied = recording.ask(&file("/proc/1/limits"), &mut |_| {}).result.unwrap_err();
    assert_eq!(denied.kind, FailureKind::Denied, "the reason of the host stays");
}

#[test]
fn a_recording_appears_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("tempdir");
    let target = directory.path().join("out.rstdoctor");
    let names = || {
        let list = std::fs::read_dir(directory.path()).expect("list");
        list.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect::<BTreeSet<_>>()
    };

    drop(RecordingFile::create(&target, false).expect("new"));
    assert!(names().is_empty(), "dropped: {:?}", names());

    let mut host =
        RecordingHost::new(Script { frames: 0, sweep: 1 }, RecordingFile::create(&target, false).expect("new"), false);
    observe(&mut host);
    assert_eq!(names(), [format!("out.rstdoctor.partial-{}", std::process::id())].into());
    host.finish().expect("written").persist().expect("named");
    assert_eq!(names(), ["out.rstdoctor".to_owned()].into());
    ReplayHost::open(&target).expect("sound");

    let refused = RecordingFile::create(&target, false).expect_err("exists");
    assert!(
        matches!(refused, RecordError::Exists { .. }) && refused.to_string().contains("exists already"),
        "{refused}"
    );
    let mut again = RecordingFile::create(&target, true).expect("allowed");
    again.write_all(b"new").expect("written");
    again.persist().expect("replaced");
    assert_eq!(std::fs::read(&target).expect("there"), b"new");

    let late = RecordingFile::create(&directory.path().join("late"), false).expect("new");
    std::fs::write(directory.path().join("late"), "someone else").expect("written");
    assert!(matches!(late.persist().expect_err("appeared meanwhile"), RecordError::Exists { .. }));
    assert_eq!(names(), ["late".to_owned(), "out.rstdoctor".to_owned()].into());
    assert!(matches!(RecordingFile::create("/dev/null".as_ref(), true), Err(RecordError::NotAFile { .. })));
}

#[test]
fn a_full_disk_ends_the_observation_and_is_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut host = RecordingHost::new(Script { frames: 0, sweep: 600 }, Full, false);
    observe(&mut host);
    assert_eq!(host.frame(poll(1)), None);
    assert!(matches!(host.finish(), Err(RecordError::Write(error)) if error.kind() == std::io::ErrorKind::StorageFull));
    let unused = RecordingHost::new(Script { frames: 0, sweep: 0 }, Vec::new(), false);
    assert!(matches!(unused.finish(), Err(RecordError::Empty)));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        proptest::prop_assert!(open(&bytes).is_err());
        proptest::prop_assert!(open(&packed(&bytes)).is_err());
    }

    #[test]
    fn arbitrary_archive_content_is_refused_or_sound(at in 0usize..40_000, value: u8) {
        use std::sync::OnceLock;
        static TAR: OnceLock<Vec<u8>> = OnceLock::new();
        let mut tar = TAR.get_or_init(|| unpacked(&recording(false, 4))).clone();
        let len = tar.len();
        tar[at % len] = value;
        // The checksums of tar and the index guard names and sizes; a changed byte inside an answer is for the parsers.
        let _ = open(&packed(&tar)).map(|mut host| observe(&mut host));
    }
}
