//! Captures as files: counted as tshark counts, read as an expert reads.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rstdoctor::capture::{self, Flows};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::rstdoctor;
use crate::common::skips::skipped;

mod links;
mod recorded;

#[derive(Deserialize)]
struct Expected {
    file: String,
    packets: u64,
    connections: u64,
    resets: [u64; 2],
    stories: Vec<String>,
    status: String,
    broken: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn expected() -> BTreeMap<String, Expected> {
    let text = std::fs::read_to_string(fixtures().join("captures/expected.toml")).expect("expected.toml");
    toml::from_str(&text).expect("expected.toml")
}

fn scan(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = rstdoctor(&[&["scan"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // It may refuse without reading all of it.
    let _ = child.stdin.take().expect("stdin").write_all(input);
    child.wait_with_output().expect("ends")
}

fn report(file: &str) -> Value {
    let path = fixtures().join("captures").join(file);
    let output = scan(&["--json", "--from", path.to_str().expect("path")], b"");
    assert_eq!(output.status.code(), Some(0), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn each_capture_gives_what_an_expert_reads() {
    let files = std::fs::read_dir(fixtures().join("captures")).expect("captures").count();
    let expected = expected();
    assert_eq!(expected.len() + 2, files, "each capture is expected to give something");
    for (name, expected) in expected {
        let report = report(&expected.file);
        let capture = &report["capture"];
        let counts = ["packets", "connections", "resets_by_initiator", "resets_by_acceptor"].map(|key| &capture[key]);
        let [initiator, acceptor] = expected.resets;
        assert_eq!(
            counts,
            [expected.packets, expected.connections, initiator, acceptor].map(Value::from).each_ref(),
            "{name}"
        );
        let flows = capture["flows"].as_array().expect("flows");
        let stories: Vec<_> = flows
            .iter()
            .flat_map(|flow| flow["readings"].as_array().expect("readings"))
            .map(|reading| reading["story"].as_str().expect("story"))
            .collect();
        assert_eq!(stories, expected.stories, "{name}");
        assert_eq!(report["verdict"]["status"], *expected.status, "{name}: {}", report["verdict"]["summary"]);
        assert_eq!(report["coverage"]["kind"], "capture", "{name}");
        match (&expected.broken, capture["broken"].as_str()) {
            (Some(part), Some(broken)) => assert!(broken.contains(part), "{name}: {broken}"),
            (None, None) => {}
            (wanted, given) => panic!("{name}: {given:?} and not {wanted:?}"),
        }
    }
}

/// Streams, and packets with RST; `None` without tshark. A TCP header that an ICMP error quotes is no packet.
fn counts_of_tshark(path: &Path) -> Option<(u64, u64)> {
    let field = |filter: &str, field: &str| {
        let mut tshark = Command::new("tshark");
        let output = tshark.arg("-r").arg(path).args(["-Y", filter, "-T", "fields", "-e", field]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let mut streams = field("tcp && !icmp && !icmpv6", "tcp.stream")?;
    streams.sort_unstable();
    streams.dedup();
    let resets = field("tcp.flags.reset == 1 && !icmp && !icmpv6", "frame.number")?;
    Some((streams.len() as u64, resets.len() as u64))
}

#[test]
fn streams_and_resets_are_those_of_tshark() {
    for expected in expected().into_values() {
        let path = fixtures().join("captures").join(&expected.file);
        let Some(counted) = counts_of_tshark(&path) else {
            skipped("tshark is not installed");
            return;
        };
        let capture = &report(&expected.file)["capture"];
        let counts = ["connections", "resets"].map(|key| capture[key].as_u64().expect("a count"));
        assert_eq!(counts, [counted.0, counted.1], "{}", expected.file);
    }
}

#[test]
fn a_capture_is_read_from_standard_input_and_packed() {
    let bytes = std::fs::read(fixtures().join("captures/smb_many_open_files_500.pcap.gz")).expect("capture");
    let output = scan(&["--json", "--from", "-"], &bytes);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["capture"]["packets"], 500);
}

#[test]
fn what_is_no_evidence_is_refused_by_name() {
    for (input, part) in [
        (&b"\x00\x01\x02\x03 nothing that is known"[..], "neither a recording"),
        (b"", "is empty"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", "its head is cut off"),
        (b"\x1f\x8bnot gzip at all", "cannot be read as gzip"),
    ] {
        let output = scan(&["--from", "-"], input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(3), true), "{said}");
        assert!(said.contains("standard input") && said.contains(part), "{said}");
    }
}

#[test]
fn whose_side_it_was_may_be_said() {
    let path = fixtures().join("captures/websocket-ping.pcap");
    let path = path.to_str().expect("path");
    let output = scan(&["--json", "--from", path, "--local", "127.0.0.1"], b"");
    assert_eq!(output.status.code(), Some(0));
    let output = scan(&["--local", "127.0.0.1"], b"");
    assert_eq!(output.status.code(), Some(2), "without a capture it means nothing");
}

fn read(bytes: &[u8]) -> Result<Flows, capture::file::Problem> {
    capture::read(Box::new(bytes), &[])
}

#[test]
fn a_capture_that_was_cut_anywhere_is_read_up_to_there_and_says_so() {
    for file in ["rst-inject-rae.pcap", "get-to-ssh-server.pcap", "https-to-http.be.pcap"] {
        let whole = std::fs::read(fixtures().join("captures").join(file)).expect("capture");
        let all = read(&whole).expect("whole");
        let mut last = 0;
        for cut in (24..whole.len()).step_by(29).chain([whole.len() - 1]) {
            let flows = read(&whole[..cut]).expect("its head is whole");
            assert!(flows.packets >= last && flows.packets <= all.packets, "{file} at {cut}");
            last = flows.packets;
        }
        assert!(last == all.packets - 1, "{file}");
        assert!(read(&whole[..whole.len() - 1]).expect("cut").broken.is_some_and(|why| why.contains("cut off")));
    }
}

fn both_ends(name: &str) -> Value {
    let file = |end: &str| fixtures().join("both-ends").join(format!("{name}.{end}.pcap"));
    let (client, server) = (file("client"), file("server"));
    let [client, server] = [&client, &server].map(|path| path.to_str().expect("path"));
    let output = scan(&["--json", "--from", client, "--from", server], b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn two_captures_tell_what_one_cannot() {
    for (name, translated, [both, never_sent, never_received], story) in [
        ("genuine", 2, [2, 0, 0], "closed-with-unread-data"),
        ("injected", 2, [0, 1, 0], "sent-by-a-device"),
        ("dropped", 0, [0, 0, 11], "reset-lost"),
    ] {
        let report = both_ends(name);
        let ends = &report["capture"]["ends"];
        let keys = ["joined", "translated", "sent_and_received", "received_never_sent", "sent_never_received"];
        let counts = keys.map(|key| ends[key].as_u64().expect("a count"));
        assert_eq!(counts, [2, translated, both, never_sent, never_received], "{name}");
        let offset = ends["clock_offset_s"].as_f64().expect("handshakes");
        assert!(offset.abs() < 0.01, "{name}: one machine has one clock, and {offset} s");
        let flows = report["capture"]["flows"].as_array().expect("flows");
        let stories: Vec<_> = flows.iter().flat_map(|flow| flow["readings"].as_array().expect("readings")).collect();
        assert!(stories.iter().any(|reading| reading["story"] == story), "{name}: {stories:?}");
    }
    let proven = both_ends("injected");
    assert_eq!(
        (&proven["causes"][0]["id"], &proven["causes"][0]["confidence"]),
        (&"middlebox-reset".into(), &0.95.into())
    );
}

/// tcpdump drops packets where it is too slow: a RST that its capture does not have may have been sent all the same.
#[test]
fn a_capture_that_lacks_other_packets_proves_nothing_by_lacking_a_reset() {
    let file = |end: &str| fixtures().join("both-ends").join(format!("injected.{end}.pcap"));
    let lossy = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(lossy.path(), without_data(&std::fs::read(file("server")).expect("a fixture"))).expect("written");
    let confidence = |first: &Path, second: &Path| {
        let [first, second] = [first, second].map(|path| path.to_str().expect("path"));
        let output = scan(&["--json", "--from", first, "--from", second], b"");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["causes"]
            .as_array()
            .expect("causes")
            .iter()
            .map(|cause| cause["confidence"].as_f64())
            .max_by(|a, b| a.partial_cmp(b).expect("numbers"))
    };
    assert_eq!(confidence(&file("client"), &file("server")), Some(Some(0.95)));
    let lossy = confidence(&file("client"), lossy.path()).flatten();
    assert!(lossy.is_none_or(|confidence| confidence < 0.8), "{lossy:?}");
}

/// The first request of each connection: what tcpdump may have dropped.
fn without_data(pcap: &[u8]) -> Vec<u8> {
    without(pcap, |packet| packet.len() == 71)
}

/// A pcap file without such packets.
fn without(pcap: &[u8], left_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (header, mut rest) = pcap.split_at(24);
    let mut kept = header.to_vec();
    while let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = rest {
        let length = 16 + u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (record, others) = rest.split_at(length);
        if !left_out(&record[16..]) {
            kept.extend_from_slice(record);
        }
        rest = others;
    }
    kept
}
