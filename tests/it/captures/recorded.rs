//! A recording of one end, and a capture of the other.

use std::path::Path;

use serde_json::Value;

use super::{fixtures, scan, without};

const CLIENT: [u8; 4] = [10, 77, 0, 2];
const SERVER: [u8; 4] = [10, 77, 0, 1];

/// A RST of that host: of IPv4 without options, behind a head of Linux cooked v2 (20 bytes).
fn is_rst_of(host: [u8; 4]) -> impl Fn(&[u8]) -> bool {
    move |packet| {
        let tcp = packet.get(..2) == Some(&[8, 0]) && packet.get(29) == Some(&6);
        tcp && packet.get(32..36) == Some(&host) && packet.get(53).is_some_and(|flags| flags & 4 != 0)
    }
}

fn judged(first: &Path, second: &Path) -> Value {
    let [first, second] = [first, second].map(|path| path.to_str().expect("path"));
    let output = scan(&["--json", "--from", first, "--from", second], b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_a_capture_of_the_other_end_lacks_was_never_sent_there_or_never_arrived() {
    let file = |name: &str| fixtures().join("both-ends").join(name);
    let recording = file("recorded.server.rst");
    let capture = std::fs::read(file("recorded.client.pcap")).expect("a fixture");
    // Both have the 20 RSTs in the client's name and the one that the server sent.
    for (left_out, expected, confidence) in
        [(None, [21, 0, 0], 0.9), (Some(CLIENT), [1, 20, 0], 0.95), (Some(SERVER), [20, 0, 1], 0.9)]
    {
        let other_end = tempfile::NamedTempFile::new().expect("a file");
        let kept = left_out.map_or(capture.clone(), |host| without(&capture, is_rst_of(host)));
        std::fs::write(other_end.path(), kept).expect("written");
        let report = judged(&recording, other_end.path());
        let counts = ["sent_and_received", "received_never_sent", "sent_never_received"]
            .map(|key| report["other_end"][key].as_u64().expect("a count"));
        assert_eq!(counts, expected, "{left_out:?}");
        let first = &report["causes"][0];
        assert_eq!(
            (&first["id"], &first["confidence"]),
            (&"middlebox-reset".into(), &confidence.into()),
            "{left_out:?}"
        );
        assert_eq!(judged(other_end.path(), &recording)["other_end"], report["other_end"], "in either order");
    }
}
