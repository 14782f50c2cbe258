use std::sync::{Arc, Mutex};

use super::*;
use crate::ask::{Ask, Clock, Probe, What, read};
use crate::recording::{ReplayHost, SegmentingHost};
use crate::stream::{Kind, append};

const TICK: Duration = Duration::from_secs(2);
const TICKS: u64 = 60;
const SETTING: &str = "/proc/sys/net/core/somaxconn";
const COUNTERS: &str = "/proc/net/snmp";

fn wall(tick: u64) -> Duration {
    Duration::from_secs(1_795_662_720) + TICK * tick as u32
}

fn at(tick: u64) -> Moment {
    Moment { mono: TICK * (tick as u32 + 500), wall: wall(tick), ..Moment::default() }
}

fn file(path: &str) -> Ask {
    Ask::host(What::File(path.to_owned()))
}

fn events() -> Ask {
    Ask::host(What::ResetEvents)
}

/// Ten resets in each tick. What the stream is, it says in the first, and a setting is looked at only then.
struct Scripted(u64);

impl Clock for Scripted {
    fn frame(&mut self, _: Frame) -> Option<Moment> {
        self.0 += 1;
        Some(at(self.0 - 1))
    }
}

impl Probe for Scripted {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let tick = self.0 - 1;
        match &ask.what {
            What::ResetEvents => {
                let mut stream = Vec::new();
                if tick == 0 {
                    append(&mut stream, Kind::Start, 0, b"rstdoctor-reset-events 1\n");
                    append(&mut stream, Kind::Format, 0, b"name: tcp_send_reset\n");
                    append(&mut stream, Kind::Tasks, 0, b"7 - user httpd\n");
                }
                append(&mut stream, Kind::Counts, 0, format!("5 {}\n", 1_000 + 10 * tick).as_bytes());
                sink(&stream);
            }
            What::File(path) if path == SETTING => sink(b"4096\n"),
            _ => sink(format!("Tcp: {tick}\n").as_bytes()),
        }
        Answer { result: Ok(()), took: Duration::ZERO }
    }
}

fn recorded() -> Vec<u8> {
    let files = Arc::new(Mutex::new(0));
    let opened = Arc::clone(&files);
    let open = move |_| {
        *opened.lock().unwrap() += 1;
        Ok(Vec::new())
    };
    let mut host = SegmentingHost::new(Scripted(0), Box::new(open), 64 << 20, false);
    for tick in 0..TICKS {
        let frame = if tick == 0 { Frame::Before } else { Frame::Tick { due: Duration::ZERO, end: Duration::MAX } };
        host.frame(frame).unwrap();
        if tick == 0 {
            read(&mut host, &file(SETTING)).0.unwrap();
        }
        read(&mut host, &file(COUNTERS)).0.unwrap();
        read(&mut host, &events()).0.unwrap();
    }
    let closed = host.finish().unwrap().unwrap();
    assert_eq!(*files.lock().unwrap(), 1, "all of it is one file");
    closed.out
}

/// What is read of a file that holds these bytes.
fn read_back(bytes: &[u8]) -> (Vec<Excerpt>, Vec<Lost>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.rst");
    fs::write(&path, bytes).unwrap();
    excerpts(&[Raw { path, from: wall(0), until: wall(TICKS) }], wall(0), wall(TICKS))
}

/// The ticks of a part, the setting, and what its stream says, without its totals and how many resets those come to.
fn replayed(recording: &[u8]) -> (Vec<u64>, String, Vec<Kind>, u64) {
    let mut host = ReplayHost::read(recording).expect("sound");
    let (mut ticks, mut setting, mut said, mut total) = (Vec::new(), None, Vec::new(), 0);
    let (due, end) = (Duration::ZERO, Duration::MAX);
    while let Some(at) = [Frame::Dump, Frame::Before, Frame::Tick { due, end }, Frame::After { end }]
        .into_iter()
        .find_map(|frame| host.frame(frame))
    {
        let tick = (at.mono.as_secs() / TICK.as_secs()) - 500;
        setting = setting.or_else(|| read(&mut host, &file(SETTING)).0.ok());
        let Ok(stream) = read(&mut host, &events()).0 else { continue };
        ticks.push(tick);
        let counters = read(&mut host, &file(COUNTERS)).0.expect("counters");
        assert_eq!(counters, format!("Tcp: {tick}\n").into_bytes());
        crate::stream::Blocks::new("test")
            .feed(&stream, &mut |kind, _, payload| {
                match kind {
                    Kind::Counts => {
                        let line = String::from_utf8_lossy(payload);
                        total = line.trim().strip_prefix("5 ").unwrap().parse().unwrap();
                    }
                    kind => said.push(kind),
                }
                Ok(())
            })
            .unwrap();
    }
    (ticks, String::from_utf8(setting.expect("the setting")).unwrap(), said, total)
}

/// Where segments begin, and the ticks up to there.
fn segments(bytes: &[u8]) -> Vec<(usize, u64)> {
    const MAGIC: &[u8] = b"\x89RST\r\n\x1a\n";
    let begin = bytes.windows(MAGIC.len()).enumerate().filter(|(_, bytes)| *bytes == MAGIC).map(|(at, _)| at);
    let all: Vec<usize> = begin.collect();
    let ticks = |end: usize| match read_back(&bytes[..end]).0.first() {
        Some(part) => replayed(&part.recording).0.len() as u64,
        None => 0,
    };
    all.iter().map(|begin| (*begin, if *begin == 0 { 0 } else { ticks(*begin) })).collect()
}

/// A part after a hole is a recording like any other: it knows the settings and what its stream is, and counts from its own first
/// tick. And wherever the damage is, no part goes across it.
#[test]
fn what_is_whole_behind_damage_is_a_part_of_its_own() {
    let bytes = recorded();
    let (whole, nothing) = read_back(&bytes);
    let all: Vec<u64> = (0..TICKS).collect();
    assert!(nothing.is_empty() && whole.len() == 1);
    assert_eq!(replayed(&whole[0].recording).0, all);
    // One who reads all of it passes over what is there for others.
    assert_eq!(replayed(&bytes), replayed(&whole[0].recording));
    let begin = segments(&bytes);
    assert!(begin.len() >= 3, "some minutes are some segments: {begin:?}");
    for place in (0..bytes.len()).step_by(13).chain(begin.iter().flat_map(|(begin, _)| *begin..begin + 40)) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        let (parts, lost) = read_back(&damaged);
        let own = begin.iter().rposition(|(begin, _)| *begin <= place).unwrap();
        let from = begin[own].1;
        let until = begin.get(own + 1).map_or(TICKS, |(_, ticks)| *ticks);
        let mut seen = Vec::new();
        for part in &parts {
            let (ticks, setting, said, total) = replayed(&part.recording);
            assert!(ticks.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{place}: {ticks:?}");
            assert_eq!(setting, "4096\n", "{place}");
            assert_eq!(said, [Kind::Start, Kind::Format, Kind::Tasks], "{place}");
            assert_eq!(total, 10 * (ticks.len() as u64 - 1), "{place}: of its own time");
            seen.extend(ticks);
        }
        let missing: Vec<u64> = all.iter().copied().filter(|tick| !seen.contains(tick)).collect();
        // What ends with a segment that is damaged ends with its last tick but one, which nothing closes.
        assert!(missing.iter().all(|tick| (from..until).contains(tick)), "{place} in {from}..{until}: {missing:?}");
        assert_eq!(lost.len(), 1, "{place}: what is missing is said once");
        let about = lost[0].from..=lost[0].until;
        assert!(missing.iter().all(|tick| about.contains(&wall(*tick))), "{place}: {about:?} {missing:?}");
        assert!(
            parts.iter().all(|part| part.until.wall <= *about.start() || part.from.wall >= *about.end()),
            "{place}"
        );
    }
}

/// What was written without openings tells of nothing behind its damage: its stream would be of nobody knows what.
#[test]
fn a_segment_that_needs_those_before_it_is_left_out_with_them() {
    let bytes = recorded();
    let begin = segments(&bytes);
    let mut damaged = bytes.clone();
    // The head of the opening of the second, and the third is whole.
    let manifest = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    damaged[begin[1].0 + 32 + manifest] ^= 1;
    let (parts, lost) = read_back(&damaged);
    let ticks: Vec<Vec<u64>> = parts.iter().map(|part| replayed(&part.recording).0).collect();
    assert_eq!(ticks, [(0..begin[1].1).collect::<Vec<_>>(), (begin[2].1..TICKS).collect()]);
    assert_eq!((lost.len(), lost[0].from, lost[0].until), (1, wall(begin[1].1 - 1), wall(begin[2].1)));
}
