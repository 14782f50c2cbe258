//! The real program, as a person or a script meets it: options, exit status, pipes, colour.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{here, skipped};
use rstdoctor::value::escape::visible;
use serde_json::Value;

pub fn rstdoctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.args(here(arguments)).stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    rstdoctor(arguments).output().expect("the program starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Wrong usage: status 2, nothing on standard output, and a message that names what was wrong.
pub fn refused(arguments: &[&str], mentions: &[&str]) {
    let output = run(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote a result");
    for mention in mentions {
        assert!(text.contains(mention), "{arguments:?}: {mention:?} is not in: {text}");
    }
}

#[test]
fn wrong_usage_is_refused_and_named() {
    refused(&["scan", "--nonesuch"], &["--nonesuch"]);
    refused(&["scna"], &["scna", "scan"]);
    refused(&["scan", "--duration", "3x"], &["--duration", "\"3x\"", "500ms"]);
    refused(&["scan", "--duration", "48h"], &["--duration", "24h"]);
    refused(&["scan", "--port", "70000"], &["--port", "70000"]);
    refused(&["scan", "--port", "0"], &["--port"]);
    refused(&["scan", "--json", "--format", "table"], &["--json", "--format"]);
    refused(&["scan", "--quiet", "--all"], &["--quiet", "--all"]);
    refused(&["scan", "--fail-on", "sometimes"], &["sometimes", "critical"]);
    refused(&["trace", "--sent", "--received"], &["--sent", "--received"]);
    refused(&["trace", "--count", "0"], &["--count"]);
    refused(&["trace", "--duration", "3x"], &["--duration", "500ms"]);
    refused(&["scan", "--port", "80,nosuchservice"], &["--port", "nosuchservice", "/etc/services"]);
    refused(&["trace", "--count", "-1"], &["--count", "-1"]);
    refused(&["scan", "--port", "-1"], &["--port", "-1"]);
    refused(&["lab", "all", "--jobs", "0"], &["--jobs", "at least 1"]);
    refused(&["record"], &["--output"]);
    refused(&["record", "-o", "x", "--interval", "0s"], &["--interval"]);
    refused(&["completions", "nosuchshell"], &["nosuchshell", "bash"]);
}

/// What a later version brings must not be taken and ignored now.
#[test]
fn options_of_later_versions_are_unknown() {
    for arguments in [&["export"][..], &["scan", "--all-netns"], &["scan", "-f", "prometheus"]] {
        refused(arguments, &[]);
    }
}

#[test]
fn without_a_command_the_help_is_shown() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("rstdoctor scan"));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_missing_recording_is_named() {
    let output = run(&["scan", "--from", "/nonexistent/web.rst"]);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(text.starts_with("rstdoctor: ") && text.contains("/nonexistent/web.rst"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_process_that_does_not_exist_is_named_at_once() {
    let started = Instant::now();
    // One above the largest id that Linux gives (PID_MAX_LIMIT, include/linux/threads.h).
    let output = run(&["scan", "--pid", "4194305", "--duration", "1m"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("no process 4194305"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert!(started.elapsed() < Duration::from_secs(30), "it waited for nothing");
}

#[test]
fn a_process_name_that_nobody_has_is_not_called_healthy() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/accept-queue-overflow/near-miss.rst");
    for arguments in [&["scan", "-d", "100ms"][..], &["scan", "--from", fixture]] {
        let report = json(&rstdoctor(arguments).args(["--process", "no-such-name", "--json"]).output().expect("runs"));
        assert_eq!(report["verdict"]["status"], "unknown", "{arguments:?}");
        let summary = report["verdict"]["summary"].as_str().expect("summary");
        assert!(summary.contains("No process no-such-name"), "{summary}");
    }
    let report = json(&run(&["scan", "--from", fixture, "--pid", "4194305", "--json"]));
    assert_eq!(report["verdict"]["status"], "unknown", "a recording cannot say whether it existed");
}

#[test]
fn a_file_that_is_no_recording_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), b"this is no recording").expect("write");
    let output = run(&["scan", "--from", file.path().to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn every_cause_can_be_explained() {
    let list = run(&["explain"]);
    assert_eq!(list.status.code(), Some(0));
    for cause in rstdoctor::cause::REGISTRY {
        assert!(stdout(&list).lines().any(|line| line.starts_with(cause.id)), "{} is not listed", cause.id);
        let output = run(&["explain", cause.id]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{}", cause.id);
        for heading in rstdoctor::cause::HEADINGS {
            assert!(text.contains(heading), "{}: {heading}", cause.id);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{} is wider than 80 columns", cause.id);
    }
}

#[test]
fn an_unknown_cause_is_answered_with_near_ones() {
    refused(&["explain", "acept-queue-overflow"], &["accept-queue-overflow"]);
    refused(&["explain", "\u{1b}[31mnonesuch\u{202e}"], &["nonesuch"]);
    let text = stderr(&run(&["explain", "\u{1b}[31mnonesuch\u{202e}"]));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

/// `rstdoctor ... | head -1`: the reader is gone before everything is written.
#[test]
fn a_closed_pipe_is_success() {
    let mut child = rstdoctor(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}

/// Where a message cannot be written it is lost, and the exit status still says what happened.
#[test]
fn a_full_disk_is_no_panic() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let status = |arguments: &[&str], out: Stdio, err: Stdio| {
        rstdoctor(arguments).stdout(out).stderr(err).status().expect("runs").code()
    };
    for (arguments, code) in [
        (&["scan", "--port", "0"][..], 2),
        (&["scan", "--from", "/nonexistent"], 3),
        (&["trace", "--count", "0"], 2),
        (&["lab", "run", "nonesuch"], 2),
    ] {
        assert_eq!(status(arguments, Stdio::null(), full().into()), Some(code), "{arguments:?}");
    }
    assert_ne!(status(&["trace", "-d", "100ms"], Stdio::null(), full().into()), Some(101), "a panic");
    for arguments in [&["explain"][..], &["completions", "bash"], &["man"], &["lab", "list"], &["scan", "-d", "0s"]] {
        assert_eq!(status(arguments, full().into(), Stdio::null()), Some(3), "{arguments:?} lost its result");
    }
}

#[test]
fn a_pipe_that_nobody_feeds_can_be_interrupted() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let pipe = directory.path().join("web.rst");
    let path = std::ffi::CString::new(pipe.to_str().expect("path")).expect("no NUL");
    // SAFETY: the path is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let output = interrupted(&["scan", "--from", pipe.to_str().expect("path")], Duration::from_millis(300));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
}

#[test]
fn no_escape_sequence_reaches_a_file() {
    for arguments in [&["explain"][..], &["explain", "accept-queue-overflow"], &["--help"]] {
        let output = rstdoctor(arguments).env_remove("CLICOLOR_FORCE").output().expect("runs");
        assert!(!output.stdout.contains(&0x1b), "{arguments:?}");
    }
}

/// Runs on a terminal of its own, made by script(1).
fn on_a_terminal(command: &str, no_color: bool) -> Option<String> {
    let mut script = Command::new("script");
    script.args(["-qec", command, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm").stdin(Stdio::null());
    if no_color {
        script.env("NO_COLOR", "1");
    }
    match script.output() {
        Ok(output) => Some(stdout(&output)),
        Err(error) => {
            skipped(format!("script(1) does not run here: {error}"));
            None
        }
    }
}

#[test]
fn colour_is_for_terminals_and_never_with_no_color() {
    let command = format!("{} explain accept-queue-overflow", env!("CARGO_BIN_EXE_rstdoctor"));
    let Some(coloured) = on_a_terminal(&command, false) else { return };
    assert!(coloured.contains("\u{1b}[1m"), "{coloured:?}");
    let plain = on_a_terminal(&command, true).expect("script ran before");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn manual_pages_are_written_into_a_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = run(&["man", directory.path().to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["rstdoctor.1", "rstdoctor-scan.1", "rstdoctor-causes.7"] {
        let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn a_directory_for_the_manual_pages_is_made() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let absent = directory.path().join("man1");
    let output = run(&["man", absent.to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(absent.join("rstdoctor.1").exists());
}

#[test]
fn manual_pages_go_where_they_should_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let theirs = directory.path().join("theirs");
    std::fs::write(&theirs, "keep").expect("a file");
    let pages = directory.path().join("pages");
    std::fs::create_dir(&pages).expect("a directory");
    std::os::unix::fs::symlink(&theirs, pages.join("rstdoctor.1")).expect("a planted link");
    let output = run(&["man", pages.to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&theirs).expect("still there"), "keep");
    assert!(std::fs::read_to_string(pages.join("rstdoctor.1")).expect("a page").contains(".TH"));
    let missing = directory.path().join("no/such/directory");
    let output = run(&["man", missing.to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("no/such/directory"), "{}", stderr(&output));
    assert!(!directory.path().join("no").exists());
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("fail-on"), "{shell}");
    }
}

#[test]
fn every_error_text_is_explained_on_one_screen() {
    for words in [
        &["Broken pipe"][..],
        &["java.net.BindException: Address already in use"],
        &["connection", "refused"],
        &["104"],
        &["TCPAbortOnClose"],
        &["The target closed the connection with a TCP RST or a TCP FIN"],
        &["nginx: recv() failed (104: Connection reset by peer) while reading response header from upstream"],
    ] {
        let output = rstdoctor(&["explain"]).args(words).output().expect("runs");
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(text.contains("\nCauses, the likeliest first\n") && text.contains("\nChange\n"), "{text}");
        assert!(text.lines().count() <= 24, "{words:?} fills more than a screen:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn an_error_text_is_explained_for_the_port_that_it_names() {
    let text = stdout(&run(&["explain", "connect ECONNREFUSED ::1:3306"]));
    assert!(text.contains("'sport = :3306'") && !text.contains("PORT"), "{text}");
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

/// The host may be in any state: the scan runs, and says something about it, whoever runs it.
#[test]
fn a_scan_ends_with_a_diagnosis() {
    let output = run(&["scan", "--duration", "300ms"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let verdict = text.lines().nth(2).unwrap_or_default();
    assert!(["OK  ", "WARNING  ", "CRITICAL  ", "UNKNOWN  "].iter().any(|word| verdict.starts_with(word)), "{text}");
    assert!(text.contains(" ruled out"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_report_of_this_host_is_valid_against_the_schema() {
    let schema: Value = serde_json::from_slice(&run(&["schema", "report"]).stdout).expect("schema");
    let validator = jsonschema::validator_for(&schema).expect("schema is sound");
    for arguments in [&["scan", "--json", "-d", "300ms"][..], &["scan", "-f", "json", "-d", "0s", "--port", "22"]] {
        let report = json(&run(arguments));
        let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{arguments:?}: {errors:?}");
    }
}

/// What is of the run and not of the evidence: how long it took to read a source.
fn without_live_only(mut report: Value) -> Value {
    for source in report["sources"].as_array_mut().expect("sources") {
        source.as_object_mut().expect("source").remove("took_s");
    }
    report
}

#[test]
fn a_recording_gives_the_same_report_each_time_and_keeps_to_its_window() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("host.rst");
    let path = file.to_str().expect("path");
    let recorded = run(&["record", "-o", path, "-d", "400ms"]);
    assert_eq!(recorded.status.code(), Some(0), "{}", stderr(&recorded));
    let report = json(&run(&["scan", "--json", "--from", path]));
    assert_eq!(without_live_only(report.clone()), without_live_only(json(&run(&["scan", "--json", "--from", path]))));
    let duration = report["window"]["duration_s"].as_f64().expect("duration");
    assert!((0.4..10.0).contains(&duration), "{duration}");
    // The summary that record printed is the live diagnosis.
    let summary = report["verdict"]["summary"].as_str().expect("summary");
    assert!(stderr(&recorded).contains(&*visible(summary)), "{summary:?}: {}", stderr(&recorded));
    // What is there is not overwritten.
    let again = run(&["record", "-o", path, "-d", "400ms"]);
    assert_eq!(again.status.code(), Some(3));
    assert!(stderr(&again).contains("host.rst"), "{}", stderr(&again));
}

#[test]
fn a_damaged_recording_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("host.rst");
    assert_eq!(run(&["record", "-o", file.to_str().expect("path"), "-d", "100ms"]).status.code(), Some(0));
    let whole = std::fs::read(&file).expect("recording");
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for (name, bytes) in [("cut.rst", &whole[..middle]), ("flipped.rst", &flipped), ("empty.rst", b"")] {
        let damaged = directory.path().join(name);
        std::fs::write(&damaged, bytes).expect("write");
        let output = run(&["scan", "--from", damaged.to_str().expect("path")]);
        assert_eq!(output.status.code(), Some(3), "{name}: {}", stdout(&output));
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "{name} gave a result");
    }
}

/// Starts the program, interrupts it after a while, and waits until it ended.
pub fn interrupted(arguments: &[&str], after: Duration) -> Output {
    let child = rstdoctor(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    std::thread::sleep(after);
    // SAFETY: the process is our child and was not waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) }, 0);
    child.wait_with_output().expect("it ends")
}

#[test]
fn an_interrupted_recording_is_sound() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("host.rst");
    let path = file.to_str().expect("path");
    let output = interrupted(&["record", "-o", path, "--duration", "1m"], Duration::from_millis(1500));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&run(&["scan", "--json", "--from", path]));
    let duration = report["window"]["duration_s"].as_f64().expect("duration");
    assert!((0.1..30.0).contains(&duration), "{duration}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("directory").count(), 1, "a partial file was left");
}

/// Without sock_diag no queue is visible: the rest of the report is there, and says so.
#[test]
fn a_kernel_without_sock_diag_is_diagnosed_from_its_counters() {
    // A seccomp filter answers socket(AF_NETLINK) with EPROTONOSUPPORT, as a kernel built without sock_diag would.
    let exe = env!("CARGO_BIN_EXE_rstdoctor");
    let deny = "from ctypes import *; import os,sys\n\
        libc=CDLL(None,use_errno=True)\n\
        class F(Structure): _fields_=[('code',c_ushort),('jt',c_ubyte),('jf',c_ubyte),('k',c_uint)]\n\
        class P(Structure): _fields_=[('len',c_ushort),('f',POINTER(F))]\n\
        nr=41 if os.uname().machine=='x86_64' else 198\n\
        f=(F*6)(F(0x20,0,0,0),F(0x15,0,3,nr),F(0x20,0,0,16),F(0x15,0,1,16),F(0x06,0,0,0x50000+93),F(0x06,0,0,0x7fff0000))\n\
        p=P(6,f)\n\
        assert libc.prctl(38,1,0,0,0)==0\n\
        assert libc.prctl(22,2,byref(p),0,0)==0, get_errno()\n\
        os.execv(sys.argv[1],sys.argv[1:])\n";
    let deny = deny.replace("\n        ", "\n");
    let output =
        Command::new("python3").args(["-c", &deny, exe, "scan", "--this-netns", "--json", "-d", "200ms"]).output();
    let output = match output {
        Ok(output) if !output.stdout.is_empty() => output,
        other => return skipped(format!("no python3 or no seccomp here: {other:?}")),
    };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    let sources = report["sources"].as_array().expect("sources");
    let listeners = sources.iter().find(|source| source["name"] == "listeners").expect("listeners");
    assert_eq!(listeners["status"], "unavailable", "{listeners}");
    assert_eq!(report["sockets"]["established"], Value::Null, "not observed is not zero");
    let unchecked = report["not_checked"].as_array().expect("not_checked");
    assert!(unchecked.iter().any(|entry| entry["id"] == "accept-loop-stalled"), "{unchecked:?}");
}

/// Ends the program, and so its threads and sockets, with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that takes nothing from a queue of one place, on which three clients wait, with a name made to deceive a
/// terminal. `None` without Python.
fn hostile_server() -> Option<(Server, u16)> {
    const PROGRAM: &str = "import socket,time\n\
        open('/proc/self/comm','w').write('\\x1b[31m\\x07ev\\nil')\n\
        l=socket.socket(); l.bind(('127.0.0.1',0)); l.listen(0); c=[]\n\
        for _ in range(3):\n    s=socket.socket(); s.setblocking(False); s.connect_ex(l.getsockname()); c.append(s)\n\
        print(l.getsockname()[1],flush=True)\n\
        time.sleep(60)\n";
    let program = PROGRAM.replace("\n        ", "\n");
    let started = Command::new("python3").args(["-c", &program]).stdout(Stdio::piped()).spawn();
    let Ok(child) = started else {
        skipped("no python3 here");
        return None;
    };
    let mut server = Server(child);
    let mut port = Vec::new();
    let mut byte = [0];
    let out = server.0.stdout.as_mut().expect("piped");
    while out.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        port.push(byte[0]);
    }
    Some((server, String::from_utf8(port).ok()?.parse().expect("a port")))
}

#[test]
fn a_full_queue_fails_a_check_and_a_hostile_name_is_never_raw() {
    let Some((_server, port)) = hostile_server() else { return };
    let port = port.to_string();
    let scan = |more: &[&str]| {
        let mut arguments = vec!["scan", "-d", "500ms", "--port", &port];
        arguments.extend(more);
        run(&arguments)
    };
    let output = scan(&["--fail-on", "warning"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\\x1b[31m\\x07ev\\nil"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let output = scan(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "without --fail-on a finding is no failure");
    assert!(!output.stdout.contains(&0x1b));
    let report = json(&output);
    assert_eq!(report["listeners"][0]["processes"][0]["name"], "\u{1b}[31m\u{7}ev\nil");
    assert_eq!(report["listeners"][0]["port"], port.parse::<u16>().expect("port"));
}

#[test]
fn a_port_that_nobody_holds_can_be_bound() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    // All of it: beside a fault of the host the section about a port is a line.
    let text = stdout(&run(&["scan", "-d", "200ms", "--all", "--port", &free.port().to_string()]));
    assert!(text.contains("nobody listens"), "{text}");
    assert!(text.contains("would succeed"), "{text}");
    assert!(!text.contains("was not collected"), "{text}");
}
