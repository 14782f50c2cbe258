//! The lab's own promises, checked from outside with the real binary: nothing is left behind, and usage is clear.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{isolated, marked, one_at_a_time, skipped};

fn lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.arg("lab").stdin(Stdio::null());
    command
}

/// Starts a scenario, waits until its actors run, ends the runner by `signal`: all must go.
fn nothing_survives(signal: i32, expected_code: Option<i32>) {
    let _turn = one_at_a_time();
    let mark = format!("RSTDOCTOR_LAB_TEST={}-{signal}", std::process::id());
    let (name, value) = mark.split_once('=').expect("the mark is an assignment");
    let mut runner = lab()
        .args(["run", "accept-queue-overflow"])
        .env(name, value)
        .stdout(Stdio::null())
        .spawn()
        .expect("the runner starts");
    let start = Instant::now();
    // Runner, the process that makes the namespaces, the one inside, and the server.
    while marked(&mark).len() < 4 && start.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(20));
    }
    if marked(&mark).len() < 4 {
        skipped("no namespaces can be made here (needs root or unprivileged user namespaces)");
        let _ = runner.kill();
        let _ = runner.wait();
        return;
    }
    // SAFETY: kill(2) takes no pointers; the runner is our child and was not waited for.
    assert_eq!(unsafe { libc::kill(runner.id() as i32, signal) }, 0);
    let status = runner.wait().expect("the runner ends");
    assert_eq!(status.code(), expected_code, "exit code after signal {signal}");
    let start = Instant::now();
    while !marked(&mark).is_empty() && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(marked(&mark), Vec::<String>::new(), "left behind after signal {signal}");
}

#[test]
fn an_interrupted_lab_leaves_no_process_and_says_130() {
    nothing_survives(libc::SIGINT, Some(130));
}

#[test]
fn the_hidden_command_of_the_lab_leaves_the_namespaces_of_its_caller_alone() {
    isolated(|| {
        let state = || {
            let names = ["net/ipv4/tcp_syncookies", "net/ipv4/tcp_max_syn_backlog"];
            let values = names.map(|name| fs::read_to_string(format!("/proc/sys/{name}")).expect("a sysctl"));
            let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
            let interfaces = fs::read_to_string("/proc/self/net/dev").expect("interfaces").lines().count();
            (values, mounts, interfaces)
        };
        let before = state();
        let mut inside = lab();
        inside.args(["inside", "syn-queue-overflow-no-cookies"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut inside = inside.spawn().expect("it starts");
        // While this end is open it runs.
        let runner = inside.stdin.take();
        let mut report = String::new();
        inside.stdout.take().expect("a pipe").read_to_string(&mut report).expect("a report");
        drop(runner);
        assert!(inside.wait().expect("it ends").success());
        assert!(report.contains("syn-queue-overflow-no-cookies"), "it ran: {report}");
        assert_eq!(state(), before);
    });
}

#[test]
fn a_killed_lab_leaves_no_process() {
    nothing_survives(libc::SIGKILL, None);
}

/// The status and the first cause that the lab reports for a scenario; `None` where it cannot run.
fn result_of(name: &str) -> Option<(String, String)> {
    let _turn = one_at_a_time();
    let output = lab().args(["run", name, "--json"]).output().expect("the binary runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let status = report["status"].as_str().expect("a status").to_owned();
    if status == "skipped" {
        skipped(format!("{}", report["reason"]));
        return None;
    }
    Some((status, report["findings"]["causes"][0]["id"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_real_fault_is_found() {
    if let Some(result) = result_of("accept-queue-overflow") {
        assert_eq!(result, ("pass".to_owned(), "accept-queue-overflow".to_owned()));
    }
}

#[test]
fn a_quiet_host_is_not_accused() {
    if let Some(result) = result_of("healthy-quiet") {
        assert_eq!(result, ("pass".to_owned(), String::new()));
    }
}

#[test]
fn an_unknown_scenario_is_wrong_usage() {
    let output = lab().args(["run", "no-such-fault"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-fault"));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_recording_of_several_scenarios_is_refused() {
    let output = lab().args(["all", "--record", "unused"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_list_names_each_scenario_on_a_line_of_its_own() {
    let output = lab().arg("list").output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["accept-queue-overflow", "syn-flood-cookies", "healthy-port-scan", "server-nginx-413"] {
        assert_eq!(text.lines().filter(|line| line.split(' ').next() == Some(name)).count(), 1, "{name}");
    }
}
