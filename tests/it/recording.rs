//! Recordings: what was recorded is replayed, and nothing but a sound recording is accepted.

mod attacks;
mod cut;
mod hostile;
mod power_cut;
mod redaction;
mod show;
mod words;

use std::io::Write;
use std::time::Duration;

use rstdoctor::ask::{Answer, Ask, Clock, DiagQuery, Frame, Host, Probe, What};
use rstdoctor::recording::write::Output;
use rstdoctor::recording::{RecordError, RecordingHost, RecordingProblem, ReplayHost};
use rstdoctor::value::{Failure, FailureKind, Moment, NetnsId};

const NETNS: NetnsId = NetnsId(4_026_531_840);

/// Answers from a script: netstat grows with each frame, the sweep is `sweep` messages of 4 KiB.
struct Script {
    frames: u64,
    sweep: usize,
}

const SWEEP: DiagQuery = DiagQuery { name: "sockets", states: 0xfff, extensions: 0 };

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
fn an_error_names_the_file() {
    let missing = ReplayHost::open("/nonexistent/x.rstdoctor".as_ref()).err().expect("refused");
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
    impl Output for Full {}
    let mut host = RecordingHost::new(Script { frames: 0, sweep: 600 }, Full, false);
    observe(&mut host);
    assert_eq!(host.frame(poll(1)), None);
    assert!(matches!(host.finish(), Err(RecordError::Write(error)) if error.kind() == std::io::ErrorKind::StorageFull));
    let unused = RecordingHost::new(Script { frames: 0, sweep: 0 }, Vec::new(), false);
    assert!(matches!(unused.finish(), Err(RecordError::Empty)));
}

/// A recording of a real fault.
fn fixture(id: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/{id}/positive.rst", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("a fixture")
}
