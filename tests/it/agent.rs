//! The flight recorder: what it stores of a fault, and what becomes of its store when things go wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{isolated, skipped};

mod damage;
mod soak;

const BINARY: &str = env!("CARGO_BIN_EXE_rstdoctor");
/// On a machine that runs other tests.
const PATIENCE: Duration = Duration::from_secs(30);

struct Agent {
    child: Child,
    store: PathBuf,
}

impl Agent {
    fn start(store: &Path, arguments: &[&str]) -> Self {
        let log = fs::File::options().create(true).append(true).open(log_of(store)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["agent", "--store"]).arg(store).args(arguments);
        if !arguments.contains(&"--interval") {
            command.args(["--interval", "500ms"]);
        }
        let child = command.stderr(log).stdout(Stdio::null()).spawn().expect("it can be run");
        Self { child, store: store.to_owned() }
    }

    /// Until it has judged a tick.
    fn ready(self) -> Self {
        self.until("an entry", |store| files(store, "idx").iter().any(|file| fs::metadata(file).unwrap().len() > 200));
        self
    }

    fn until(&self, what: &str, reached: impl FnMut(&Path) -> bool) {
        self.within(PATIENCE, what, reached);
    }

    fn within(&self, patience: Duration, what: &str, mut reached: impl FnMut(&Path) -> bool) {
        let start = Instant::now();
        while !reached(&self.store) {
            assert!(start.elapsed() < patience, "{what} did not come; {}", said(&self.store));
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How long it took to end, and whether it says that it went well.
    fn end(mut self, signal: Signal) -> (Duration, Option<i32>) {
        let start = Instant::now();
        self.signal(signal);
        let status = self.child.wait().unwrap();
        (start.elapsed(), status.code())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(store: &Path) -> PathBuf {
    store.with_extension("log")
}

fn said(store: &Path) -> String {
    fs::read_to_string(log_of(store)).unwrap_or_default()
}

fn files(store: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(store).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
    files.sort();
    files
}

fn run(arguments: &[&str], store: &Path) -> Output {
    Command::new(BINARY).args(arguments).arg("--store").arg(store).output().expect("it can be run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn history(store: &Path) -> Value {
    let output = run(&["history", "--since", "1h", "--json"], store);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

/// Episodes of a cause.
fn episodes(store: &Path, id: &str) -> Vec<Value> {
    let history = history(store);
    history["episodes"].as_array().unwrap().iter().filter(|episode| episode["id"] == id).cloned().collect()
}

/// Connections closed with unread data, for so long.
fn fault(listener: &TcpListener, length: Duration) {
    let start = Instant::now();
    while start.elapsed() < length {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[1; 100]).unwrap();
        thread::sleep(Duration::from_millis(40));
        drop(server);
        let _ = client.read(&mut [0]);
    }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    (directory, store)
}

#[test]
fn a_fault_is_an_episode_and_is_judged_again_as_it_was_then() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let agent = Agent::start(&store, &["--this-netns"]).ready();
        let (begun, live) = thread::scope(|scope| {
            let begun = std::time::SystemTime::now();
            let fault = scope.spawn(|| fault(&listener, Duration::from_secs(6)));
            thread::sleep(Duration::from_secs(1));
            let live = Command::new(BINARY).args(["scan", "--json"]).output().unwrap();
            fault.join().unwrap();
            (begun, live)
        });
        let ended = std::time::SystemTime::now();
        agent.until("the end of the episode", |store| {
            episodes(store, "close-with-unread-data").iter().any(|episode| episode["ending"] == "ended")
        });
        let episode = episodes(&store, "close-with-unread-data").remove(0);
        let near = |time: &Value, then: std::time::SystemTime| {
            let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
            let apart = time.duration_since(then).unwrap_or_else(|before| before.duration());
            assert!(apart <= Duration::from_millis(1_500), "{apart:?} apart: {episode}");
        };
        near(&episode["from"], begun);
        near(&episode["until"], ended);
        assert_eq!((&episode["fault"], &episode["place"]["port"]), (&Value::from(true), &Value::from(9000)));
        assert!(episode["events"].as_u64().unwrap() >= 50, "{episode}");

        // As a live scan judged it, while the recorder still writes.
        let live: Value = serde_json::from_slice(&live.stdout).unwrap();
        let at = live["window"]["started_at"].as_str().unwrap().to_owned();
        let again = run(&["scan", "--json", "--at", &at], &store);
        let again: Value = serde_json::from_slice(&again.stdout).unwrap_or_else(|_| panic!("{}", text(&again)));
        let first = |report: &Value| {
            let cause = &report["causes"][0];
            (report["verdict"]["status"].clone(), cause["id"].clone(), cause["place"]["port"].clone())
        };
        assert_eq!(first(&live), first(&again), "{again}");
        // On a machine that is too busy the two lose different records, and each says so.
        let measured = |report: &Value| {
            let mut reasons = report["ledger"]["sent"]["by_reason"].as_array().unwrap().iter();
            reasons.all(|reason| reason["basis"] == "measured" && reason["reason"] != "record-lost")
        };
        if measured(&live) && measured(&again) {
            assert_eq!(live["causes"][0]["confidence"], again["causes"][0]["confidence"], "{again}");
        }
        assert_eq!(again["ledger"]["sent"]["unexplained"], 0);
        assert_eq!(again["not_checked"], live["not_checked"], "what was looked at then is known now");
        // The live scan began after the recorder did, and asked nothing of anybody; a client that did is known by its name.
        let begun = std::time::SystemTime::now();
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            (exec 3<>/dev/tcp/127.0.0.1/9001) 2>/dev/null; sleep 0.1; done; sleep 2";
        let mut asks = Command::new("bash").args(["-c", script]).spawn().unwrap();
        thread::sleep(Duration::from_secs(3));
        asks.wait().unwrap();
        let at = humantime::format_rfc3339_millis(begun + Duration::from_secs(1)).to_string();
        agent.until("that time is stored", |store| {
            let trace = run(&["trace", "--json", "--since", &at], store);
            text(&trace).contains(":9001")
        });
        let trace = run(&["trace", "--json", "--since", &at, "--received"], &store);
        let trace = text(&trace);
        let lines: Vec<Value> = trace.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let asked: Vec<_> = lines.iter().filter(|line| line["peer"]["port"] == 9001).collect();
        // On a machine that is too busy the kernel loses records, and says how many.
        let lost = lines.iter().filter_map(|line| line["lost"].as_u64()).max().unwrap_or(0);
        let unnamed = asked.iter().filter(|reset| reset["process"]["name"] != "bash").count();
        assert!(!asked.is_empty() && unnamed as u64 <= lost, "{trace}");

        let trace = run(&["trace", "--json", "--since", "10m", "--sent"], &store);
        let resets = String::from_utf8_lossy(&trace.stdout)
            .lines()
            .filter(|line| line.contains("\"9000\"") || line.contains(":9000"))
            .count();
        assert!(resets >= 50, "{}", text(&trace));
        let now = run(&["scan", "--at", "now"], &store);
        assert_eq!(now.status.code(), Some(0), "{}", text(&now));
        assert!(text(&now).contains("is not recorded yet; the latest that is:"), "{}", text(&now));
        let never = run(&["scan", "--at", "2020-01-01 00:00:00"], &store);
        assert_eq!(never.status.code(), Some(3));
        assert!(text(&never).contains("nothing was recorded"), "{}", text(&never));
        let page = run(&["history", "--format", "html"], &store);
        let page = String::from_utf8(page.stdout).unwrap();
        assert!(page.contains("Closed with unread data") && page.contains("<svg") && !page.contains("<script"));

        let (took, status) = agent.end(Signal::TERM);
        assert_eq!(status, Some(0), "{}", said(&store));
        assert!(took < Duration::from_secs(1), "{took:?}");
        let output = run(&["history"], &store);
        assert!(!text(&output).contains("cut off"), "{}", text(&output));
        for file in files(&store, "rst") {
            let scan = Command::new(BINARY).args(["scan", "--quiet", "--from"]).arg(&file).output().unwrap();
            assert!(scan.status.success() && !text(&scan).contains("cut off"), "{file:?}: {}", text(&scan));
        }
    });
}

/// What is judged of a longer time is the time of its fault; before it nothing is wrong; and where only the index still knows of it,
/// nobody is told that all was well.
#[test]
fn a_time_is_judged_at_its_fault_and_never_well_without_the_evidence_of_it() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let agent = Agent::start(&store, &["--this-netns"]).ready();
        let wall = |at: std::time::SystemTime| humantime::format_rfc3339_millis(at).to_string();
        thread::sleep(Duration::from_secs(7));
        let begun = std::time::SystemTime::now();
        fault(&listener, Duration::from_secs(11));
        let ended = std::time::SystemTime::now();
        agent.until("the end of the episode", |store| {
            episodes(store, "close-with-unread-data").iter().any(|episode| episode["ending"] == "ended")
        });
        let known = files(&store, "rst");
        agent.signal(Signal::HUP);
        agent.until("another recording", |store| files(store, "rst").iter().any(|file| !known.contains(file)));
        thread::sleep(Duration::from_secs(5));
        agent.end(Signal::TERM);
        let around = Duration::from_secs(5);
        let span = [wall(begun - around), wall(ended + around)];
        let asked = ["--since", span[0].as_str(), "--until", span[1].as_str()];
        let scan = |more: &[&str]| run(&[&["scan"], more, &asked].concat(), &store);

        let output = scan(&["--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        assert_eq!(report["causes"][0]["id"], "close-with-unread-data", "{report}");
        let started = humantime::parse_rfc3339(report["window"]["started_at"].as_str().unwrap()).unwrap();
        let length = Duration::from_secs_f64(report["window"]["duration_s"].as_f64().unwrap());
        // A tick is 2 s.
        let tick = Duration::from_millis(2_500);
        assert!(started + tick >= begun && started + length <= ended + tick && length > tick, "{}", text(&output));
        let told = report["sources"].as_array().unwrap().iter().find(|source| source["name"] == "store");
        let why = told.expect("that it is a part")["reason"].as_str().unwrap();
        assert!(why.contains("the time of a fault"), "{why}");
        assert_eq!(report["coverage"]["kind"], "store");

        let before = [wall(begun - around), wall(begun - tick)];
        let quiet = run(&["scan", "--since", &before[0], "--until", &before[1], "--fail-on", "warning"], &store);
        assert_eq!(quiet.status.code(), Some(0), "{}", text(&quiet));

        let watch = run(&["watch", "--no-tui", "--at", "2020-01-01"], &store);
        assert!(watch.status.code() == Some(3) && text(&watch).contains("nothing was recorded"), "{}", text(&watch));

        known.iter().for_each(|file| fs::remove_file(file).unwrap());
        let output = scan(&["--fail-on", "critical"]);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(3), true), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains("no raw evidence") && said.contains("CRITICAL close-with-unread-data at"), "{said}");
        let trace = run(&[&["trace"], &asked[..]].concat(), &store);
        assert!(text(&trace).contains("close-with-unread-data"), "{}", text(&trace));
    });
}

/// A time of day has the zone that it says, whatever that of the process is; and resets outside the time are none of it.
#[test]
fn times_are_read_and_shown_in_their_zone() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let agent = Agent::start(&store, &["--this-netns"]).ready();
        let begun = std::time::SystemTime::now();
        fault(&listener, Duration::from_secs(5));
        agent.until("the episode", |store| episodes(store, "close-with-unread-data").len() == 1);
        thread::sleep(Duration::from_secs(3));
        agent.end(Signal::TERM);
        // In the middle of it: a second, and nothing before or after.
        let seconds = |after: u64| {
            let at = humantime::format_rfc3339_seconds(begun + Duration::from_secs(after)).to_string();
            at[11..19].to_owned()
        };
        let (since, until) = (format!("{}+00:00", seconds(2)), format!("{}Z", seconds(3)));
        let output = Command::new(BINARY)
            .args(["trace", "--sent", "--since", &since, "--until", &until, "--store"])
            .arg(&store)
            .env("TZ", "IST-5:30")
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(lines.lines().count() >= 5, "{}", text(&output));
        let second = &seconds(2)[6..];
        let is_own = |line: &str| line[6..8] == *second && line[12..18] == *"+05:30";
        assert!(lines.lines().all(is_own), "{}", text(&output));
    });
}

/// Who restarts the recorder while something goes on reads of one fault, not of two.
#[test]
fn a_restart_is_no_news() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let stops = soak::Stops(&stop);
            let called = store.with_extension("called");
            let hook = format!("sh -c 'cat >> {}'", called.display());
            let start = || Agent::start(&store, &["--this-netns", "--exec", &hook]);
            let first = start().ready();
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    fault(&listener, Duration::from_millis(500));
                }
            });
            first.until("the episode", |store| episodes(store, "close-with-unread-data").len() == 1);
            // What it knows is in the recording, up to the tick before the latest.
            thread::sleep(Duration::from_secs(3));
            first.end(Signal::TERM);
            let before = history(&store)["ticks"].as_u64().unwrap();
            // One that ends after its first tick leaves no whole one to those that come next.
            let second = start();
            second.until("a tick", |store| history(store)["ticks"].as_u64().unwrap() > before);
            second.end(Signal::TERM);
            let third = start();
            third.until("more ticks", |store| history(store)["ticks"].as_u64().unwrap() > before + 5);
            let told = episodes(&store, "close-with-unread-data");
            assert!(told.len() == 1 && told[0]["ending"] == "goes-on", "{told:?}");
            drop(stops);
            third.until("its end", |store| {
                episodes(store, "close-with-unread-data").iter().all(|episode| episode["ending"] == "ended")
            });
            let told = episodes(&store, "close-with-unread-data");
            assert!(told.len() == 1, "{told:?}");
            third.end(Signal::TERM);
            let calls = fs::read_to_string(&called).unwrap();
            let own = calls.lines().map(|line| serde_json::from_str::<Value>(line).expect("one event a line"));
            let own: Vec<_> = own.filter(|event| event["id"] == "close-with-unread-data").collect();
            let told: Vec<_> = own.iter().map(|event| event["what"].as_str().unwrap()).collect();
            assert!(told.starts_with(&["appeared"]) && told.ends_with(&["ended"]), "{told:?}");
            assert_eq!(told.iter().filter(|what| **what == "appeared").count(), 1, "{told:?}");
            let since = |event: Option<&Value>| event.map(|event| event["since"].clone());
            assert_eq!(since(own.first()), since(own.last()), "{own:?}");
        });
    });
}

/// Of what was still there when the recorder ended nobody knows how it went on.
#[test]
fn nothing_goes_on_for_a_recorder_that_ended() {
    isolated(|| {
        for (signal, port) in [(Signal::TERM, 9000), (Signal::KILL, 9001)] {
            let (_directory, store) = directory();
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let agent = Agent::start(&store, &["--this-netns"]).ready();
            thread::scope(|scope| {
                scope.spawn(|| fault(&listener, Duration::from_secs(8)));
                agent.until("the episode", |store| episodes(store, "close-with-unread-data").len() == 1);
                thread::sleep(Duration::from_secs(2));
                let on = text(&run(&["history"], &store));
                assert!(on.contains("1 episode, which goes on") && on.contains("--store "), "{on}");
                agent.end(signal);
            });
            let ended = text(&run(&["history"], &store)).replace('\n', " ");
            assert!(ended.contains("1 episode, whose end was not seen") && ended.contains("seen until"), "{ended}");
            assert!(!ended.contains("goes on"), "{ended}");
            let history = history(&store);
            let failed = history["services"][0]["failures"].as_u64().unwrap();
            let events = history["episodes"][0]["events"].as_u64().unwrap();
            assert!(failed > 10 && events == failed, "{history}");
        }
    });
}

#[test]
fn one_writes_a_store_and_many_read_it() {
    isolated(|| {
        let (directory, store) = directory();
        let first = Agent::start(&store, &[]).ready();
        let second = run(&["agent"], &store);
        assert_eq!(second.status.code(), Some(3));
        let who = format!("another rstdoctor agent (pid {})", first.child.id());
        assert!(text(&second).contains(&who), "{}", text(&second));
        for _ in 0..5 {
            assert_eq!(run(&["history"], &store).status.code(), Some(0));
        }
        first.end(Signal::TERM);
        Agent::start(&store, &[]).ready();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        Command::new("chmod").arg("755").arg(&open).status().unwrap();
        let refused = run(&["agent"], &open);
        assert_eq!(refused.status.code(), Some(3));
        assert!(text(&refused).contains("chmod 700"), "{}", text(&refused));
        let nothing = run(&["history"], &directory.path().join("nothing"));
        assert!(text(&nothing).contains("there is no store"), "{}", text(&nothing));
    });
}

#[test]
fn what_was_written_survives_a_kill_at_any_moment() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let runs = std::env::var("RSTDOCTOR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
        let mut known = 0;
        for round in 0..runs {
            let agent = Agent::start(&store, &["--interval", "200ms"]);
            thread::scope(|scope| {
                scope.spawn(|| fault(&listener, Duration::from_millis(1_500)));
                // Spread over the start and the work.
                thread::sleep(Duration::from_millis(100 + (round * 7919 % 2_400)));
                let before = episodes_of_any(&store);
                agent.end(Signal::KILL);
                let after = episodes_of_any(&store);
                assert!(after >= before && after >= known, "{before} episodes, then {after}: what was written is gone");
                known = after;
            });
            for file in files(&store, "rst") {
                let scan = Command::new(BINARY).args(["scan", "--quiet", "--from"]).arg(&file).output().unwrap();
                assert_ne!(scan.status.code(), Some(101));
                let odd = text(&scan);
                assert!(!odd.contains("damaged") && !odd.contains("do not trust"), "{file:?}: {odd}");
            }
        }
        let output = run(&["history"], &store);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(!text(&output).contains("damaged"), "{}", text(&output));
    });
}

fn episodes_of_any(store: &Path) -> usize {
    if files(store, "idx").is_empty() { 0 } else { history(store)["episodes"].as_array().map_or(0, Vec::len) }
}

#[test]
fn damage_and_later_versions_are_said_and_the_rest_is_read() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        for _ in 0..3 {
            let agent = Agent::start(&store, &["--this-netns"]).ready();
            fault(&listener, Duration::from_secs(2));
            thread::sleep(Duration::from_secs(1));
            agent.end(Signal::TERM);
        }
        assert!(!episodes(&store, "close-with-unread-data").is_empty());
        let index = files(&store, "idx");
        let change = |file: &Path, at: usize, to: u8| {
            let mut bytes = fs::read(file).unwrap();
            bytes[at] = to;
            fs::write(file, bytes).unwrap();
        };
        let middle = fs::metadata(&index[0]).unwrap().len() as usize - 100;
        change(&index[0], middle, 0xa5);
        change(&index[1], 8, 9);
        let damaged = [files(&store, "idx")[0].clone(), files(&store, "idx")[1].clone()];
        let damaged = damaged.map(|file| file.file_name().unwrap().to_string_lossy().into_owned());
        let output = run(&["history"], &store);
        assert_eq!(output.status.code(), Some(0));
        let words = text(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("is damaged at segment 0") && words.contains("what is before that was read"), "{words}");
        assert!(words.contains("is of a newer rstdoctor (format 9)"), "{words}");
        assert!(words.contains(&format!("was recorded, and cannot be read: {}", damaged[1])), "{words}");
        assert!(!words.contains("record again") && !words.contains("record -o"), "a store cannot be: {words}");
        assert!(words.contains("Closed with unread data"), "the third is sound: {words}");
        let told = history(&store);
        assert_eq!(
            told["problems"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|text| { damaged.iter().any(|file| text.as_str().unwrap().contains(file)) })
                .count(),
            2,
            "{told}"
        );
        for format in ["html", "markdown"] {
            let page = text(&run(&["history", "--format", format], &store));
            assert!(damaged.iter().all(|file| page.contains(file.split('.').next().unwrap())), "{page}");
        }
        let recordings = files(&store, "rst");
        change(&recordings[0], 60, 0xa5);
        // It is recorded, and cannot be read.
        let name = recordings[0].file_name().unwrap().to_str().unwrap();
        let begun = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &name[9..25]).unwrap();
        let at = format!("{}Z", begun.checked_add(jiff::Span::new().seconds(1)).unwrap());
        let scan = crate::agent::text(&run(&["scan", "--at", &at], &store));
        assert!(scan.contains("damaged") && scan.contains("that can be read"), "{scan}");
        assert!(!scan.contains("nothing was recorded") && !scan.contains("kept around faults"), "{scan}");
        let output = run(&["trace", "--since", "10m", "--json"], &store);
        assert!(
            crate::agent::text(&output).contains("damaged") && output.stdout.len() > 1000,
            "{}",
            crate::agent::text(&output)
        );
    });
}

/// Each tick holds one failure at most, which alone is anybody's chance.
#[test]
fn a_service_that_fails_each_of_its_few_requests_is_an_episode_from_its_first_one() {
    isolated(|| {
        let (_directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let agent = Agent::start(&store, &["--this-netns"]).ready();
        let begun = std::time::SystemTime::now();
        for _ in 0..8 {
            fault(&listener, Duration::from_millis(1));
            thread::sleep(Duration::from_millis(1_300));
        }
        let ended = std::time::SystemTime::now();
        agent.until("the episode", |store| !episodes(store, "close-with-unread-data").is_empty());
        agent.end(Signal::TERM);
        let found = episodes(&store, "close-with-unread-data");
        assert_eq!(found.len(), 1, "{found:?}");
        let (episode, severity) = (&found[0], found[0]["severity"].as_str());
        assert_eq!((severity, episode["place"]["port"].as_u64()), (Some("critical"), Some(9000)), "{episode}");
        assert_eq!(episode["events"], 8, "{episode}");
        for (time, then) in [(&episode["from"], begun), (&episode["until"], ended)] {
            let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
            let apart = time.duration_since(then).unwrap_or_else(|before| before.duration());
            assert!(apart <= Duration::from_millis(3_000), "{apart:?} apart: {episode}");
        }
    });
}

/// An agent whose disk was full for twelve seconds of a fault, and the store.
fn on_a_full_disk(then: impl FnOnce(Agent, &Path)) {
    let (directory, _) = directory();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skipped("a tmpfs cannot be mounted here");
    }
    let store = disk.join("store");
    fs::create_dir(&store).unwrap();
    Command::new("chmod").arg("700").arg(&store).status().unwrap();
    let agent = Agent::start(&store, &["--interval", "200ms", "--this-netns"]).ready();
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    // What happens now is an episode that cannot be stored.
    let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
    let full = std::sync::atomic::AtomicBool::new(true);
    let is_full = &full;
    thread::scope(|scope| {
        scope.spawn(move || {
            // What is deleted to make room is somebody else's at once.
            while is_full.load(std::sync::atomic::Ordering::Relaxed) {
                while file.write_all(&[7; 4096]).is_ok() {}
                thread::sleep(Duration::from_millis(5));
            }
        });
        // A page may hold some seconds of the index still.
        fault(&listener, Duration::from_secs(12));
        full.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    agent.until("the word that it is full", |store| said(store).contains("No space left on device"));
    assert_eq!(run(&["history"], &store).status.code(), Some(0), "what was written is read");
    fs::remove_file(&filler).unwrap();
    then(agent, &store);
    let words = text(&run(&["history"], &store)).split_whitespace().collect::<Vec<_>>().join(" ");
    for lost in ["Lost 20", "Lost some raw evidence of 20"] {
        let rest = words.split_once(lost).map(|(_, rest)| rest).unwrap_or_default();
        assert!(rest.contains("could not be written: No space left on device"), "{lost}: {words}");
    }
    assert_eq!(
        said(&store).matches("No space left").count(),
        said(&store).lines().filter(|l| l.contains("No space")).count()
    );
}

/// Why something is not in a store.
fn lost_for(told: &Value, what: &str, reason: &str) -> bool {
    let mut whys = told[what].as_array().unwrap().iter().filter_map(|gap| gap["why"].as_str());
    whys.any(|why| why.contains(reason))
}

#[test]
fn a_full_disk_is_said_and_survived() {
    isolated(|| {
        on_a_full_disk(|agent, store| {
            let before = history(store)["ticks"].as_u64().unwrap();
            let full = files(store, "rst");
            // What failed is tried again after at most half a minute.
            agent.within(Duration::from_secs(100), "a new recording", |store| {
                files(store, "rst").iter().any(|file| !full.contains(file))
            });
            // It ends then, and is whole.
            agent.signal(Signal::HUP);
            for again in ["recordings are written again", "the store is written again"] {
                agent.within(Duration::from_secs(100), again, |store| said(store).contains(again));
            }
            assert!(lost_for(&history(store), "raw_missing", "No space left on device"), "{}", history(store));
            let (_, status) = agent.end(Signal::TERM);
            assert_eq!(status, Some(0), "{}", said(store));
            let told = history(store);
            assert!(told["ticks"].as_u64().unwrap() > before);
            assert!(lost_for(&told, "missing", "No space left on device"), "{told}");
        });
    });
}

/// Raw evidence was not tried again yet when the agent ends.
#[test]
fn what_a_full_disk_cost_is_told_at_the_end() {
    isolated(|| {
        on_a_full_disk(|agent, store| {
            // So that there is something to write soon: where nothing happens there is an entry a minute.
            let listener = TcpListener::bind("127.0.0.1:9001").unwrap();
            agent.within(Duration::from_secs(100), "the word that it is written again", |store| {
                fault(&listener, Duration::from_secs(1));
                said(store).contains("the store is written again")
            });
            assert!(!said(store).contains("recordings are written again"), "{}", said(store));
            agent.end(Signal::TERM);
            let told = history(store);
            assert!(lost_for(&told, "missing", "No space left on device"), "{told}");
            assert!(lost_for(&told, "raw_missing", "No space left on device"), "{told}");
        });
    });
}

/// Nobody finds in the store who it was, and what happened is told all the same.
#[test]
fn a_redacted_store_holds_no_names() {
    isolated(|| {
        let (_directory, store) = directory();
        Command::new("ip").args(["addr", "add", "10.77.88.99/32", "dev", "lo"]).status().unwrap();
        let listener = TcpListener::bind("10.77.88.99:9000").unwrap();
        let agent = Agent::start(&store, &["--redact", "--this-netns"]).ready();
        fault(&listener, Duration::from_secs(2));
        agent.until("the episode", |store| !episodes(store, "close-with-unread-data").is_empty());
        agent.end(Signal::TERM);
        let history = history(&store).to_string();
        assert!(history.contains("\"redacted\":true") && !history.contains("10.77.88.99"), "{history}");
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(!history.contains(own.trim()), "{} in {history}", own.trim());
        let recording = files(&store, "rst").remove(0);
        let shown = Command::new(BINARY).args(["recording", "show"]).arg(&recording).output().unwrap();
        assert!(text(&shown).contains(", redacted"), "{}", text(&shown));
        let scan = Command::new(BINARY).args(["scan", "--json", "--from"]).arg(&recording).output().unwrap();
        assert!(
            !text(&scan).contains("10.77.88.99") && text(&scan).contains("close-with-unread-data"),
            "{}",
            text(&scan)
        );
    });
}

#[test]
fn a_hook_gets_what_happened_and_no_shell_sees_it() {
    isolated(|| {
        let (directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let (script, told) = (directory.path().join("hook"), directory.path().join("told"));
        fs::write(&script, format!("#!/bin/sh\n{{ echo \"$@\"; cat; }} >> {}\n", told.display())).unwrap();
        Command::new("chmod").arg("700").arg(&script).status().unwrap();
        let exec = format!("{} '$(id) two'", script.display());
        let agent = Agent::start(&store, &["--exec", &exec]).ready();
        fault(&listener, Duration::from_secs(3));
        agent.until("its end", |_| fs::read_to_string(&told).unwrap_or_default().contains("\"what\":\"ended\""));
        let told = fs::read_to_string(&told).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "$(id) two");
        let first: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&first["what"], &first["id"]), (&"appeared".into(), &"close-with-unread-data".into()));
        assert_eq!(told.matches("\"what\":\"appeared\"").count(), 1, "{told}");
    });
}

#[test]
fn metrics_are_what_prometheus_reads() {
    isolated(|| {
        let (directory, store) = directory();
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let prom = directory.path().join("rstdoctor.prom");
        // That of the shipped unit; this process is of this test alone.
        let umask = rustix::process::umask(rustix::fs::Mode::from(0o077));
        let agent = Agent::start(&store, &["--listen", "127.0.0.1:9469", "--textfile", prom.to_str().unwrap()]);
        rustix::process::umask(umask);
        let agent = agent.ready();
        fault(&listener, Duration::from_secs(2));
        let get = |path: &str, accept: &str| {
            let mut stream = TcpStream::connect("127.0.0.1:9469").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        agent.until("resets in the metrics", |_| get("/metrics", "*/*").contains("cause=\"close-with-unread-data\""));
        assert!(get("/healthz", "*/*").starts_with("HTTP/1.1 200"));
        assert!(get("/nothing", "*/*").starts_with("HTTP/1.1 404"));
        let open = get("/metrics", "application/openmetrics-text; version=1.0.0");
        assert!(open.contains("application/openmetrics-text") && open.ends_with("# EOF\n"));
        let text = fs::read_to_string(&prom).unwrap();
        for name in [
            "rstdoctor_service_failures_total",
            "rstdoctor_listener_backlog",
            "rstdoctor_process_cpu_seconds_total",
            "rstdoctor_source_up",
        ] {
            assert!(text.contains(&format!("\n{name}{{")) || text.contains(&format!("\n{name} ")), "{name}: {text}");
        }
        let foreign = text.lines().find(|line| !line.starts_with('#') && !line.starts_with("rstdoctor_"));
        assert_eq!(foreign, None, "node_exporter tells others of its own");
        assert!(open.contains("\nprocess_cpu_seconds_total "), "{open}");
        assert!(
            open.contains(
                "rstdoctor_episodes_total{cause=\"listener-closed\",severity=\"critical\",because_of=\"\"} 0\n"
            ),
            "{open}"
        );
        let mode = fs::metadata(&prom).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "the collector is another user");
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match promtool {
            Ok(mut promtool) => {
                promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
                let output = promtool.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", crate::agent::text(&output));
            }
            Err(error) => skipped(format!("needs promtool (Debian: prometheus): {error}")),
        }
        agent.end(Signal::TERM);
        assert!(!prom.exists(), "what nobody renews would be taken for what is");
    });
}
