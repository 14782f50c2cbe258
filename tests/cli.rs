//! The real program, as a person or a script meets it: options, exit status, pipes, colour.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn rstdoctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    rstdoctor(arguments).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Wrong usage: status 2, nothing on standard output, and a message that names what was wrong.
fn refused(arguments: &[&str], mentions: &[&str]) {
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
    refused(&["scan", "--duration", "3"], &["--duration", "\"3\"", "500ms"]);
    refused(&["scan", "--duration", "48h"], &["--duration", "24h"]);
    refused(&["scan", "--port", "70000"], &["--port", "70000"]);
    refused(&["scan", "--port", "0"], &["--port"]);
    refused(&["scan", "--json", "--format", "table"], &["--json", "--format"]);
    refused(&["scan", "--fail-on", "sometimes"], &["sometimes", "critical"]);
    refused(&["trace", "--sent", "--received"], &["--sent", "--received"]);
    refused(&["trace", "--count", "0"], &["--count"]);
    refused(&["trace", "--duration", "3"], &["--duration", "500ms"]);
    refused(&["record"], &["--output"]);
    refused(&["record", "-o", "x", "--interval", "0s"], &["--interval"]);
    refused(&["completions", "nosuchshell"], &["nosuchshell", "bash"]);
}

/// What a later version brings must not be taken and ignored now.
#[test]
fn options_of_later_versions_are_unknown() {
    for arguments in [&["watch"][..], &["export"], &["scan", "--all-netns"], &["scan", "-f", "prometheus"]] {
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
            eprintln!("skipped: script(1) does not run here: {error}");
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
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("fail-on"), "{shell}");
    }
}

fn explain_log(log: &[u8]) -> String {
    let mut child = rstdoctor(&["explain", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(log).expect("the log is read to its end");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    stdout(&output)
}

#[test]
fn an_error_text_is_explained_on_one_screen() {
    for words in [&["Broken pipe"][..], &["java.net.BindException: Address already in use"], &["connection", "refused"]]
    {
        let output = rstdoctor(&["explain"]).args(words).output().expect("runs");
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(text.contains("What to change"), "{text}");
        assert!(text.lines().count() <= 40, "{words:?} fills more than a screen");
    }
}

#[test]
fn a_log_is_counted_whatever_it_contains() {
    let mut log = b"ok\n\xff\xfe\x1b[2Jrecv() failed (104: Connection reset by peer)\n".to_vec();
    log.extend(std::iter::repeat_n(b'x', 200_000));
    log.extend_from_slice(b"\nOSError: [Errno 24] Too many open files");
    let text = explain_log(&log);
    assert!(text.starts_with("4 lines read, 2 with a known error text."), "{text}");
    assert!(text.contains("1 line longer than 16 KiB"), "{text}");
    assert!(text.contains("(line 2)") && text.contains("(line 4)"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn an_empty_log_contains_nothing() {
    assert_eq!(explain_log(b""), "0 lines read, 0 with a known error text.\n");
}
