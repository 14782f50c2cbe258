//! `rstdoctor watch` without a screen: lines, JSON, playback, signals, and a world that changes meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{here, is_ignored, isolated, skipped};

fn watch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    let arguments = [&["watch"], arguments].concat();
    command.args(here(&arguments)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    watch(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn reports(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a report on one line")).collect()
}

/// A watch in JSON whose ticks are read as they come.
struct Live {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Live {
    fn start(arguments: &[&str]) -> Self {
        let mut child = watch(arguments).arg("--json").spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn tick(&mut self) -> Value {
        let line = self.lines.next().expect("a further tick").expect("readable");
        serde_json::from_str(&line).expect("a report")
    }

    /// The number of ticks until one has what is looked for; at most 20.
    fn until(&mut self, what: &str, found: impl Fn(&Value) -> bool) -> usize {
        (1..=20).find(|_| found(&self.tick())).unwrap_or_else(|| panic!("20 ticks without {what}"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn happened(tick: &Value, what: &str, id: &str) -> bool {
    tick["watch"]["events"].as_array().is_some_and(|all| all.iter().any(|e| e["what"] == what && e["id"] == id))
}

fn changed<'a>(tick: &'a Value, kind: &str) -> Option<&'a str> {
    tick["watch"]["changes"].as_array()?.iter().find(|change| change["kind"] == kind)?["text"].as_str()
}

#[test]
fn each_line_is_a_report_and_the_ticks_stay_on_their_grid() {
    let output = run(&["--json", "-i", "300ms", "-n", "4"]);
    let schema = serde_json::from_str(&rstdoctor::render::json::report_schema()).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a sound schema");
    let reports = reports(&output);
    let numbers: Vec<_> = reports.iter().map(|report| report["watch"]["tick"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for report in &reports {
        let errors: Vec<_> = validator.iter_errors(report).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    let time: f64 = reports.iter().map(|report| report["window"]["duration_s"].as_f64().expect("a duration")).sum();
    let late = reports[3]["watch"]["late_s"].as_f64().unwrap_or(0.1);
    assert!(time >= 1.19 && time <= 1.2 + late + 0.1, "4 windows of 0.3 s without a gap: {time}");
    assert_eq!(reports[0]["watch"]["sweep"]["taken"], "first");
}

#[test]
fn a_reader_that_has_enough_ends_it() {
    let mut child = watch(&["--json", "-i", "200ms"]).spawn().expect("the program starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    assert!(first.starts_with('{'));
    // The pipe is closed now.
    let status = end_of(&mut child);
    let mut errors = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
}

fn end_of(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn absurd_intervals_are_refused_with_what_to_write() {
    let cases =
        [("0s", "--interval"), ("0", "0s"), ("-2s", "--interval"), ("1ms", "100ms"), ("2h", "1h"), ("x", "500ms")];
    for (given, mention) in cases {
        let output = run(&["-i", given]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{given}: {errors}");
        assert!(errors.contains(if given == "0" { "--interval" } else { mention }), "{given}: {errors}");
        assert!(output.stdout.is_empty());
    }
    for arguments in
        [&["-n", "0"][..], &["--port", "0"], &["--from", "x", "-i", "1s"], &["--from", "x", "--netns", "y"]]
    {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let missing = run(&["--from", "/nonexistent/recording.rst"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(text(&missing.stderr).contains("/nonexistent/recording.rst"));
}

#[test]
fn a_termination_ends_with_the_summary() {
    // In a namespace without other resets, which would be a verdict and its exit status.
    let signals = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
    if signals.into_iter().any(is_ignored) {
        skipped("signals that the shell lets this process ignore");
    }
    let heard: Vec<_> = signals.into_iter().filter(|signal| !is_ignored(*signal)).map(Signal::as_raw).collect();
    isolated(|| ends_with_the_summary(&heard));
}

fn ends_with_the_summary(signals: &[i32]) {
    for &signal in signals {
        let mut child = watch(&["-i", "200ms"]).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("a line");
        assert!(first.starts_with("Watching "), "{first}");
        // SAFETY: kill(2) takes no pointers; the child was not waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let status = end_of(&mut child);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("text");
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(rest.lines().any(|line| line.starts_with("Watched ")), "{rest}");
    }
}

#[test]
fn nowhere_to_write_is_a_clear_end() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = watch(&["-i", "200ms"]).stdout(full).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
}

/// Closes accepted connections with unread bytes until told to stop.
fn unread_data(stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    let listener = TcpListener::bind("127.0.0.1:9000").expect("a free port");
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut client = TcpStream::connect("127.0.0.1:9000").expect("a connection");
            let (server, _) = listener.accept().expect("a connection");
            client.write_all(&[1; 1000]).expect("room");
            std::thread::sleep(Duration::from_millis(10));
            drop(server);
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

#[test]
fn a_fault_appears_within_two_ticks_and_ends_within_two() {
    isolated(|| {
        let mut live = Live::start(&["-i", "500ms"]);
        live.tick();
        let stop = Arc::new(AtomicBool::new(false));
        let fault = unread_data(&stop);
        // The tick in which it began is the first.
        let appeared = live.until("the fault", |tick| happened(tick, "appeared", "close-with-unread-data"));
        assert!(appeared <= 2, "it appeared with tick {appeared}");
        let during = live.tick();
        assert_eq!(during["causes"][0]["id"], "close-with-unread-data");
        // It does not follow each change of severity, as the verdict of a single window does.
        let status = during["watch"]["status"].as_str().expect("a word");
        assert!(["warning", "critical"].contains(&status), "{status}");
        stop.store(true, Ordering::Relaxed);
        fault.join().expect("the fault");
        let ended = live.until("its end", |tick| happened(tick, "ended", "close-with-unread-data"));
        // The tick in which it ended still shows it.
        assert!(ended <= 3, "it ended with tick {ended}");
        assert_eq!(live.tick()["watch"]["status"], "ok");
    });
}

#[test]
fn settings_and_listeners_that_change_are_told() {
    isolated(|| {
        let first = TcpListener::bind("127.0.0.1:8080").expect("a free port");
        let mut live = Live::start(&["-i", "300ms"]);
        live.tick();
        std::fs::write("/proc/sys/net/core/somaxconn", "77").expect("our own namespace");
        live.until("the setting", |tick| {
            changed(tick, "sysctl-changed")
                .is_some_and(|text| text.contains("net.core.somaxconn") && text.contains("\"77\""))
        });
        drop(first);
        let of_port = |tick: &Value, kind| changed(tick, kind).is_some_and(|text| text.contains("127.0.0.1:8080"));
        live.until("the end of the listener", |tick| of_port(tick, "listener-gone"));
        let second = TcpListener::bind("127.0.0.1:8080").expect("a free port");
        live.until("the new listener", |tick| of_port(tick, "listener-appeared"));
        drop(second);
    });
}

#[test]
fn a_namespace_that_goes_away_is_told() {
    isolated(|| {
        let mut other = Command::new("unshare").args(["-n", "sleep", "60"]).spawn().expect("unshare");
        std::thread::sleep(Duration::from_millis(300));
        let pid = other.id().to_string();
        let mut live = Live::start(&["-i", "300ms", "--netns", &pid, "--no-events"]);
        assert_eq!(changed(&live.tick(), "namespace-gone"), None);
        other.kill().expect("ours");
        other.wait().expect("ours");
        live.until("the end of the namespace", |tick| changed(tick, "namespace-gone").is_some());
        assert_eq!(changed(&live.tick(), "namespace-gone"), None, "told once");
    });
}

#[test]
fn a_recording_plays_the_ticks_that_it_holds() {
    isolated(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("fault.rst");
        let file = file.to_str().expect("a path");
        let stop = Arc::new(AtomicBool::new(false));
        let fault = unread_data(&stop);
        let record = ["record", "--this-netns", "-o", file, "-d", "2s", "-i", "500ms"];
        let recorded = Command::new(env!("CARGO_BIN_EXE_rstdoctor")).args(record).output().expect("it starts");
        stop.store(true, Ordering::Relaxed);
        fault.join().expect("the fault");
        assert!(recorded.status.success(), "{}", text(&recorded.stderr));
        assert!(text(&recorded.stderr).contains("unread data"), "its verdict: {}", text(&recorded.stderr));
        let ticks = reports(&run(&["--from", file, "--json"]));
        assert_eq!(ticks.len(), 4, "a tick each 0.5 s, the end included");
        // Beside other tests the fault may rest for a tick.
        let faulty: Vec<_> = ticks.iter().filter(|tick| tick["ledger"]["sent"]["total"] != 0).collect();
        assert!(!faulty.is_empty());
        for tick in faulty {
            assert_eq!(tick["causes"][0]["id"], "close-with-unread-data", "{}", tick["verdict"]["summary"]);
        }
        assert_eq!(ticks, reports(&run(&["--from", file, "--json"])), "each time the same");
        let lines = text(&run(&["--from", file]).stdout);
        assert!(lines.contains("appeared") && lines.contains("Watched 2 s, 4 ticks"), "{lines}");
    });
}

/// Every recording of a real fault, played tick by tick.
#[test]
fn each_tick_of_each_recorded_fault_follows_the_schema() {
    use rstdoctor::diagnosis::filter::Filter;
    use rstdoctor::recording::ReplayHost;
    use rstdoctor::render::json;
    use rstdoctor::session::Plan;
    use rstdoctor::timeline::{Driver, Next};

    let schema = serde_json::from_str(&json::report_schema()).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a sound schema");
    let mut played = 0;
    for cause in rstdoctor::cause::REGISTRY {
        let path = format!("{}/fixtures/{}/positive.rst", env!("CARGO_MANIFEST_DIR"), cause.id);
        let mut recording = ReplayHost::open(path.as_ref()).unwrap_or_else(|error| panic!("{error}"));
        let window = recording.windows().first().expect("a window").planned;
        let mut driver = Driver::start(&mut recording, &Plan::scan(window), window, Filter::default()).expect("frames");
        loop {
            match driver.advance() {
                Next::Looked => {}
                Next::Over => break,
                Next::Tick(tick) => {
                    let line = json::line(&json::tick(&tick)).expect("JSON");
                    let report: Value = serde_json::from_str(&line).expect("JSON");
                    let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
                    assert!(errors.is_empty(), "{}: {errors:?}", cause.id);
                    let found = tick.diagnosis.causes.iter().any(|found| found.id == cause.id);
                    assert!(found, "{} is not in its recording, played as ticks", cause.id);
                    played += 1;
                }
            }
        }
    }
    assert!(played >= rstdoctor::cause::REGISTRY.len(), "{played} ticks");
}
