//! `rstdoctor recording show`.

use std::process::Command;

use super::recording;

fn show(arguments: &[&str], bytes: &[u8]) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.rst");
    std::fs::write(&file, bytes).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    let output = command.args(["recording", "show"]).arg(file).args(arguments).output().expect("rstdoctor");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn all_frames_and_keys_are_listed() {
    let (code, out, err) = show(&[], &recording(false, 2));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in [
        "frame 0 before +0.000 s, segment 0, frame 0 (byte ",
        "frame 3 after +0.150 s",
        "  ns/4026531840/sock_diag/sockets 8192 bytes",
        "  host/file/proc/1/limits 0 bytes, Denied: host/file/proc/1/limits: permission denied (needs root)",
        "not redacted",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
}

#[test]
fn one_answer_is_printed_as_text_or_in_hexadecimal() {
    let bytes = recording(false, 1);
    let (code, out, _) = show(&["file/proc/net/netstat"], &bytes);
    assert_eq!(code, Some(0));
    assert!(out.contains("frame 2 poll +0.100 s 20 bytes\n  TcpExt: A\n  TcpExt: 3\n"), "{out}");
    let (_, out, _) = show(&["ns/4026531840/sock_diag/sockets"], &bytes);
    assert!(out.contains("  000000  00 10 00 00 14 00") && out.contains("and 3584 bytes more"), "{out}");
    let (code, _, err) = show(&["file/proc/nothing"], &bytes);
    assert!(code == Some(3) && err.contains("no answer has that key"), "{err}");
}

#[test]
fn what_is_before_the_damage_or_the_cut_is_shown() {
    let mut bytes = recording(false, 1);
    let (_, out, err) = show(&[], &bytes[..bytes.len() - 30]);
    assert!(out.contains("frame 2 poll") && !out.contains("frame 3") && err.contains("cut off after 3 whole"), "{err}");
    let middle = bytes.len() - 60;
    bytes[middle] ^= 1;
    let (code, out, err) = show(&[], &bytes);
    assert!(code == Some(3) && out.contains("frame 2 poll") && err.contains("damaged at segment 0, frame 3"), "{err}");
}
