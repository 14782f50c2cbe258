//! Texts as people paste them: what each says, as `scan --from` reads it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::cli::rstdoctor;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/texts").join(file)
}

fn scan(files: &[&str], options: &[&str]) -> Output {
    let mut command = rstdoctor(&["scan", "--from"]);
    command.args(files.iter().map(|file| path(file))).args(options).output().expect("runs")
}

fn report(files: &[&str]) -> Value {
    let output = scan(files, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn causes(report: &Value) -> Vec<(&str, &str, f64)> {
    let causes = report["causes"].as_array().expect("causes").iter();
    let text = |cause: &'_ Value, key: &str| cause[key].as_str().expect("text").to_owned();
    let all: Vec<(String, String, f64)> = causes
        .map(|cause| (text(cause, "id"), text(cause, "state"), cause["confidence"].as_f64().expect("a number")))
        .collect();
    all.into_iter().map(|(id, state, sure)| (&*id.leak(), &*state.leak(), sure)).collect()
}

#[test]
fn a_full_queue_is_seen_in_pasted_sockets_and_counters() {
    for file in ["netstat-st-ss-nltp-k8s-node.txt", "nstat-az-ss-accept-queue.txt"] {
        let report = report(&[file]);
        assert_eq!((&report["verdict"]["status"], &report["coverage"]["kind"]), (&"warning".into(), &"text".into()));
        let causes = causes(&report);
        let first: Vec<_> = causes.iter().take(2).map(|(id, ..)| *id).collect();
        assert!(first.contains(&"accept-queue-overflow"), "{file}: {causes:?}");
        assert_eq!(report["window"]["duration_s"], 0.0, "totals since boot");
    }
}

#[test]
fn totals_since_boot_are_past_and_never_sure() {
    let report = report(&["proc-net-snmp-netstat-sockstat.txt"]);
    assert_eq!(report["verdict"]["status"], "unknown");
    let causes = causes(&report);
    assert!(!causes.is_empty() && causes.iter().all(|(_, state, _)| *state == "past"), "{causes:?}");
    let hinted = causes.iter().filter(|(id, ..)| *id != "time-wait-table-full" && *id != "accept-queue-overflow");
    assert!(hinted.clone().all(|(_, _, sure)| *sure <= 0.6), "{causes:?}");
    assert_eq!(report["counters"]["Tcp.OutRsts"]["total"], 1003);
}

#[test]
fn two_texts_are_a_window() {
    let report = report(&["netstat-s-before.txt", "netstat-s-after.txt"]);
    let overflow = report["causes"].as_array().expect("causes").iter().find(|it| it["id"] == "accept-queue-overflow");
    let overflow = overflow.expect("the queue overflowed between the two");
    assert_eq!((&overflow["state"], &overflow["impact"]["events"]), (&"active".into(), &300.into()));
}

#[test]
fn packets_as_text_are_a_capture() {
    let report = report(&["tcpdump-refused-v.txt"]);
    let capture = &report["capture"];
    assert_eq!(
        [&capture["packets"], &capture["connections"], &capture["resets"]],
        [&Value::from(2), &1.into(), &1.into()]
    );
    let flow = &capture["flows"][0];
    assert_eq!((&flow["phase"], &flow["reset_by"]), (&"refused".into(), &"acceptor".into()));
    assert_eq!(flow["rst"][0]["ttl"], 61);
}

#[test]
fn another_language_is_refused_with_the_way_out() {
    let output = scan(&["netstat-s-de.txt"], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(3), true), "{said}");
    assert!(said.contains("LC_ALL=C netstat -s"), "{said}");
}

#[test]
fn what_was_not_understood_is_named_with_its_line() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("paste.txt");
    std::fs::write(&file, "TcpExtListenOverflows 72 0.0\nfrobnicate 7\n").expect("write");
    let output = rstdoctor(&["scan", "--from"]).arg(&file).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("line 2: frobnicate 7"), "{said}");
    std::fs::write(&file, "all is well\nERROR flux capacitor misaligned\n").expect("write");
    let output = rstdoctor(&["scan", "--from"]).arg(&file).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("line 2") && said.contains("flux capacitor"), "{said}");
}
