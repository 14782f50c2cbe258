//! A store with a damaged place in the middle of a file: what is before and behind it is told, and it is no time in which nothing
//! happened.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use rstdoctor::cause::{Severity, State};
use rstdoctor::diagnosis::Status;
use rstdoctor::history::{Account, ActiveCause, Entry, Event, Place, Started, Stopped, millis};
use rstdoctor::store::{Journal, Limits, Store};
use rstdoctor::timeline::What;
use rstdoctor::value::Moment;
use rustix::process::Signal;
use serde_json::Value;

use super::{Agent, directory, fault, files, history, run, text};
use crate::common::forge::{self, CONTINUED};
use crate::common::isolated;

const MINUTES: u64 = 16;

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x20;
    fs::write(file, bytes).unwrap();
}

/// Where segments begin.
fn segments(bytes: &[u8]) -> Vec<usize> {
    let heads = bytes.windows(8).enumerate().filter(|(_, bytes)| bytes == b"\x89RST\r\n\x1a\n");
    heads.map(|(at, _)| at).collect()
}

fn place() -> Place {
    Place { at: "port 80".into(), port: Some(80), ..Place::default() }
}

fn event(what: What, at: Moment, since: Moment, events: u64) -> Entry {
    Entry::Event(Event {
        what,
        at: millis(at.wall),
        since: millis(since.wall),
        from_start: false,
        id: "accept-queue-overflow".into(),
        title: "Accept queue overflow".into(),
        place: place(),
        severity: Severity::Critical,
        state: State::Active,
        harmless: false,
        summary: "it overflows".into(),
        per_s: 1.0,
        unit: "connection attempts".into(),
        events,
        times: 1,
        attempts: None,
        failures: None,
        because_of: None,
        evidence: Vec::new(),
        remedies: Vec::new(),
    })
}

/// An account of so many seconds, with the fault or without.
fn account(from: Moment, seconds: u64, faulty: bool) -> Account {
    let cause = ActiveCause {
        id: "accept-queue-overflow".into(),
        place: place(),
        severity: Severity::Critical,
        state: State::Active,
        events: seconds,
        standing: 0,
        per_s: None,
        because_of: None,
    };
    let status = if faulty { Status::Critical } else { Status::Ok };
    Account {
        from: millis(from.wall),
        until: millis(from.wall) + 1_000 * seconds,
        ticks: seconds as u32 / 2,
        status: Some(status),
        causes: if faulty { vec![cause] } else { Vec::new() },
        ..Account::default()
    }
}

/// A fault in the first 20 s of each fourth minute. The time at which the store begins.
fn written(directory: &Path) -> Moment {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let begin = Duration::from_secs(now.as_secs() / 60 * 60 - (MINUTES + 2) * 60);
    let moment = |seconds: u64| Moment {
        mono: Duration::from_secs(100_000 + seconds),
        wall: begin + Duration::from_secs(seconds),
        ..Moment::default()
    };
    let mut store = Store::open(directory, Limits { keep: Duration::from_secs(86_400), size: 100 << 20 }).unwrap();
    let mut journal = Journal::new(false);
    let mut push = |at: Moment, entry: Entry| journal.push(&mut store, at, &entry).unwrap();
    let started = Started {
        at: millis(begin),
        version: "1".into(),
        interval_s: 2.0,
        hostname: None,
        kernel: None,
        redacted: false,
        tells_roots: true,
    };
    push(moment(0), Entry::Started(started));
    for minute in 0..MINUTES {
        let from = 60 * minute;
        let faulty = minute % 4 == 3;
        for second in (0..20).step_by(2).filter(|_| faulty) {
            let at = moment(from + second + 2);
            match second {
                0 => push(at, event(What::Appeared, at, moment(from), 2)),
                18 => push(at, event(What::Ended, at, moment(from), 20)),
                _ => {}
            }
            push(at, Entry::Tick(account(moment(from + second), 2, true)));
        }
        push(moment(from + 60), Entry::Minute(account(moment(from), 60, faulty)));
    }
    push(moment(60 * MINUTES), Entry::Stopped(Stopped { at: millis(moment(60 * MINUTES).wall) }));
    journal.close().unwrap();
    moment(0)
}

fn at(begin: Moment, seconds: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + begin.wall + Duration::from_secs(seconds)).to_string()
}

fn seconds(begin: Moment, time: &Value) -> f64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() - begin.wall.as_secs_f64()
}

/// Whichever segment of the index it is in, one byte costs its few minutes.
#[test]
fn history_goes_on_behind_a_damaged_segment_and_says_what_is_missing() {
    let (_directory, store) = directory();
    let begin = written(&store);
    let index = files(&store, "idx").remove(0);
    let sound = fs::read(&index).unwrap();
    let heads = segments(&sound);
    assert!(heads.len() >= 6, "a segment every two minutes: {heads:?}");
    let lost = |told: &Value| -> Vec<(f64, f64)> {
        let gaps = told["missing"].as_array().unwrap().iter().filter(|gap| gap["why"].is_string());
        gaps.map(|gap| (seconds(begin, &gap["from"]), seconds(begin, &gap["until"]))).collect()
    };
    let begun = |told: &Value| -> Vec<f64> {
        told["episodes"].as_array().unwrap().iter().map(|episode| seconds(begin, &episode["from"])).collect()
    };
    let whole = history(&store);
    assert_eq!((begun(&whole), lost(&whole)), (vec![180.0, 420.0, 660.0, 900.0], vec![]));
    for (number, head) in heads.iter().enumerate() {
        let end = heads.get(number + 1).copied().unwrap_or(sound.len());
        for place in [*head, *head + 14, *head + 60, (head + end) / 2, end - 10] {
            flip(&index, place);
            let told = history(&store);
            let [(from, until)] = lost(&told)[..] else { panic!("{number}, {place}: one gap: {told}") };
            assert!(until - from <= 260.0, "{number}, {place}: {from} to {until}");
            // What is not in the gap is told, and nothing is that was not.
            let known: Vec<f64> = [180.0, 420.0, 660.0, 900.0]
                .into_iter()
                .filter(|begun| *begun + 20.0 <= from || *begun >= until)
                .collect();
            let told_of = begun(&told);
            assert!(known.iter().all(|begun| told_of.contains(begun)), "{number}, {place}: {told_of:?} of {known:?}");
            assert!(told_of.len() <= 4, "{number}, {place}: {told_of:?}");
            let name = index.file_name().unwrap().to_str().unwrap();
            let problems = told["problems"].to_string();
            assert!(problems.contains(name) && problems.contains("damaged"), "{number}, {place}: {problems}");
            fs::write(&index, &sound).unwrap();
        }
    }
    // Shown to people in each form, and no raw evidence is no reason to say that all was well there.
    flip(&index, (heads[3] + heads[4]) / 2);
    let [(from, until)] = lost(&history(&store))[..] else { panic!("one gap") };
    for form in [&["history"][..], &["history", "--format", "html"], &["history", "--format", "markdown"]] {
        let page = text(&run(form, &store)).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(page.contains("was recorded, and cannot be read"), "{page}");
        assert!(page.contains("left out"), "{page}");
    }
    for form in [&["--json"][..], &["--fail-on", "warning"], &[]] {
        let time = at(begin, ((from + until) / 2.0) as u64);
        let scan = run(&[&["scan", "--at", &time], form].concat(), &store);
        assert!(scan.status.code() == Some(3) && scan.stdout.is_empty(), "{form:?}: {}", text(&scan));
    }
}

/// A minute of raw evidence with a damaged place: judged before and behind it as if there were two recordings, and in it not at
/// all.
#[test]
fn a_time_is_judged_before_and_behind_a_hole_and_not_in_it() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let agent = Agent::start(&store, &["--this-netns"]).ready();
        let since_begin = SystemTime::now();
        let until = |seconds: u64| {
            let left = (since_begin + Duration::from_secs(seconds)).duration_since(SystemTime::now());
            thread::sleep(left.unwrap_or_default());
        };
        let wall = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
        until(3);
        let first = SystemTime::now();
        fault(&listener, Duration::from_secs(6));
        until(36);
        let second = SystemTime::now();
        fault(&listener, Duration::from_secs(6));
        until(50);
        agent.end(Signal::TERM);

        let file = files(&store, "rst").remove(0);
        let bytes = fs::read(&file).unwrap();
        assert!(segments(&bytes).len() >= 2, "half a minute is a segment");
        let (frames, places) = forge::unpack(&bytes);
        let places = places.into_iter().filter(|place| u32::from(bytes[*place]) < CONTINUED);
        let hole = second - Duration::from_secs(20);
        let wall_of = |frame: &[u8]| Duration::from_nanos(u64::from_le_bytes(frame[24..32].try_into().unwrap()));
        let after = hole.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let place = frames.iter().zip(places).find(|((_, frame), _)| wall_of(frame) >= after).unwrap().1;
        flip(&file, place + 30);

        let scan = |time: SystemTime, more: &[&str]| run(&[&["scan", "--at", &wall(time)], more].concat(), &store);
        for (fault, name) in [(first, "before"), (second, "behind")] {
            let output = scan(fault + Duration::from_secs(2), &["--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
            let cause = &report["causes"][0];
            assert_eq!(
                (&cause["id"], &cause["place"]["port"]),
                (&"close-with-unread-data".into(), &9000.into()),
                "{name}"
            );
            // By the kernel's own word, for which one has to know what its stream is.
            assert_eq!(report["ledger"]["sent"]["by_reason"][0]["basis"], "measured", "{name}: {report}");
            let events = cause["impact"]["events"].as_u64().unwrap();
            let length = report["window"]["duration_s"].as_f64().unwrap();
            assert!(events as f64 <= 30.0 * length, "{name}: no more than happen in {length} s: {events}");
        }
        for ago in [2, 5] {
            let inside = scan(hole + Duration::from_secs(ago), &[]);
            let said = text(&inside);
            assert!(inside.status.code() == Some(3) && inside.stdout.is_empty(), "{said}");
            assert!(said.contains("damaged") && said.contains("left out"), "{said}");
        }
        // Quiet on both sides, and half of it was not seen.
        let edge = run(
            &["scan", "--since", &wall(hole - Duration::from_secs(3)), "--until", &wall(hole + Duration::from_secs(3))],
            &store,
        );
        assert!(edge.status.code() == Some(3) && !text(&edge).contains("OK  "), "{}", text(&edge));
        // All of it: the worst is one of the two faults, by itself.
        let all = run(
            &["scan", "--json", "--since", &wall(first), "--until", &wall(second + Duration::from_secs(6))],
            &store,
        );
        let report: Value = serde_json::from_slice(&all.stdout).unwrap_or_else(|_| panic!("{}", text(&all)));
        assert!(report["window"]["duration_s"].as_f64().unwrap() < 15.0, "{report}");
        assert!(text(&all).contains("no raw evidence of"), "{}", text(&all));
        let trace = run(&["trace", "--sent", "--json", "--since", &wall(second)], &store);
        assert!(text(&trace).matches(":9000").count() > 50, "{}", text(&trace));
    });
}
