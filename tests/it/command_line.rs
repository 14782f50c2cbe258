//! What a person or a monitor finds on the command line beyond its grammar: early ends, statuses, locales, hints.

use std::time::{Duration, Instant};

use crate::cli::{interrupted, refused, rstdoctor, run, stderr, stdout};
use crate::common::skipped;

#[test]
fn an_interrupted_scan_judges_what_it_saw() {
    let started = Instant::now();
    let output = interrupted(&["scan", "--duration", "5m"], Duration::from_secs(6));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("\nLooked "), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("interrupted after") && stderr(&output).contains("of 5 min"),
        "{}",
        stderr(&output)
    );
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// At once, so that there is no window to speak of.
#[test]
fn a_scan_that_is_interrupted_at_once_has_no_result() {
    for wait in [200, 100, 50, 25] {
        let output = interrupted(&["scan", "--duration", "5m"], Duration::from_millis(wait));
        if output.status.code() == Some(130) {
            assert!(output.stdout.is_empty(), "{}", stdout(&output));
            return assert!(stderr(&output).contains("interrupted before there was a result"));
        }
        // Before it took signals, or after half a second of it, on a machine that does much else.
        assert!(matches!(output.status.code(), None | Some(0)), "{output:?}");
    }
    skipped("no moment between the start and half a second was met");
}

/// What a monitor must not take for health.
#[test]
fn a_check_fails_where_nobody_can_say_or_nothing_is_there() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/abortive-close/near-miss.rst");
    let status = |arguments: &[&str]| {
        rstdoctor(&["scan", "--from", fixture]).args(arguments).output().expect("runs").status.code()
    };
    assert_eq!(status(&["--fail-on", "critical"]), Some(0), "healthy");
    for absent in [["--process", "nosuchname"], ["--port", "9"], ["--port", "8080,9"]] {
        assert_eq!(status(&absent), Some(0), "{absent:?}");
        assert_eq!(status(&[absent[0], absent[1], "--fail-on", "critical"]), Some(1), "{absent:?}");
    }
    let nobody = ["scan", "--pid", "4194305", "-d", "5m"];
    assert_eq!(rstdoctor(&nobody).args(["--fail-on", "info"]).status().expect("runs").code(), Some(1));
    let output = rstdoctor(&nobody).args(["--format", "nagios"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stdout(&output), "RSTDOCTOR UNKNOWN - --pid: no process 4194305 on this host\n");
}

#[test]
fn one_line_for_monitors_and_for_people_in_a_hurry() {
    let fixture = |name: &str| format!("{}/fixtures/{name}.rst", env!("CARGO_MANIFEST_DIR"));
    for (name, word, plugin) in [
        ("accept-queue-overflow/positive", "CRITICAL", 2),
        ("close-wait-leak/positive", "WARNING", 1),
        ("health-check-resets/positive", "OK", 0),
    ] {
        let output = run(&["scan", "--from", &fixture(name), "--format", "nagios"]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(plugin), "{text}");
        assert!(text.starts_with(&format!("RSTDOCTOR {word} - ")) && text.contains(" | critical="), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let output = run(&["scan", "--from", &fixture(name), "--quiet"]);
        let text = stdout(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(0), 1), "{text}");
        assert!(text.starts_with(&format!("{word}  ")), "{text}");
    }
}

#[test]
fn ascii_is_all_that_a_plain_locale_gets() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/idle-timeout/positive.rst");
    let in_locale = |locale: &str, arguments: &[&str]| {
        let output = rstdoctor(arguments).env_remove("LC_CTYPE").env("LC_ALL", locale).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    let commands: [&[&str]; 6] = [
        &["scan", "--from", fixture],
        &["scan", "--all", "--from", fixture],
        &["watch", "--no-tui", "--from", fixture],
        &["trace", "--from", fixture],
        &["explain", "ECONNRESET"],
        &["explain", "idle-timeout"],
    ];
    for arguments in commands {
        let text = in_locale("C", arguments);
        assert!(text.is_ascii(), "{arguments:?}: {:?}", text.chars().find(|letter| !letter.is_ascii()));
    }
    assert!(in_locale("C.UTF-8", &["scan", "--from", fixture]).contains(" · "));
}

#[test]
fn a_bare_word_is_answered_with_what_it_was_meant_for() {
    refused(&["scan", "80"], &["'80'", "--port 80", "--pid 80"]);
    refused(&["scan", "nginx"], &["'nginx'", "--process"]);
    refused(&["watch", "web.rst"], &["--from"]);
    refused(&["scan", "--nonesuch"], &["--nonesuch"]);
}

#[test]
fn manual_pages_go_where_they_are_asked_to_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let absent = directory.path().join("x/y");
    let output = run(&["man", absent.to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(directory.path()).expect("directory").count(), 0);
    let output = run(&["man", directory.path().to_str().expect("path")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for entry in std::fs::read_dir(directory.path()).expect("directory") {
        let path = entry.expect("entry").path();
        let page = std::fs::read_to_string(&path).expect("a page");
        if path.extension().is_some_and(|extension| extension == "1") {
            assert!(page.contains(".SH \"EXIT STATUS\"\n") && page.contains(".SH EXAMPLES\n"), "{}", path.display());
        }
    }
    let scan = std::fs::read_to_string(directory.path().join("rstdoctor-scan.1")).expect("the page of scan");
    assert!(scan.contains(".SH FILES\n") && scan.contains("/sys/kernel/tracing"), "{scan}");
}
