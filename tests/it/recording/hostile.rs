//! Recordings made to cost memory and time, with sound checksums: the kernel ends a scan that takes more than it may.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use crate::common::forge::{AFTER, BEFORE, DUMP, Frame, POLL, answer, pack, times};

const SECOND: u64 = 1_000_000_000;
/// CPU seconds; without optimisation all takes about ten times as long.
const SECONDS: u64 = if cfg!(debug_assertions) { 20 } else { 2 };
const BYTES: u64 = 200 << 20;
const NETNS: u64 = 4_026_531_840;

fn frame(tag: u32, at: u64, answers: &[Vec<u8>]) -> Frame {
    let due = at.saturating_sub(2 * SECOND);
    (tag, [times(due, 2 * SECOND, at, at, 0), answers.concat()].concat())
}

fn namespaces() -> Vec<u8> {
    answer("host/namespaces", &[format!("{NETNS}\n").as_bytes()])
}

fn netns(what: &str, parts: &[&[u8]]) -> Vec<u8> {
    answer(&format!("ns/{NETNS}/{what}"), parts)
}

/// A window whose frames hold these answers.
fn window(dump: &[Vec<u8>], looks: &[Frame], after: &[Vec<u8>]) -> Vec<u8> {
    let first = [&[namespaces()], dump].concat();
    let mut frames = vec![frame(DUMP, SECOND, &first), frame(BEFORE, 2 * SECOND, &[])];
    frames.extend_from_slice(looks);
    frames.push(frame(AFTER, 4 * SECOND, after));
    pack(&frames)
}

/// Scans within the limits.
fn scan(recording: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hostile.rst");
    std::fs::write(&path, recording).expect("written");
    let mut scan = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    scan.args(["scan", "--from"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let limit = |resource, most: u64| {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: reads the structure.
        match unsafe { libc::setrlimit(resource, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: setrlimit(2) alone, which is safe between fork and exec.
    unsafe {
        scan.pre_exec(move || {
            limit(libc::RLIMIT_CPU, SECONDS)?;
            limit(libc::RLIMIT_DATA, BYTES)
        })
    };
    let status = scan.status().expect("rstdoctor");
    assert_eq!(status.signal(), None, "{SECONDS} s of CPU time and {BYTES} bytes are not enough");
}

/// A sock_diag message of an IPv4 socket in state LISTEN, with these port, cookie and inode.
fn listener(port: u16, cookie: u64) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    bytes[..4].copy_from_slice(&88u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
    (bytes[16], bytes[17]) = (libc::AF_INET as u8, 10);
    bytes[20..22].copy_from_slice(&port.to_be_bytes());
    bytes[60..68].copy_from_slice(&cookie.to_ne_bytes());
    bytes[84..88].copy_from_slice(&(cookie as u32).to_ne_bytes());
    bytes
}

/// The end of a dump, NLMSG_DONE.
fn done() -> Vec<u8> {
    [&20u32.to_ne_bytes()[..], &3u16.to_ne_bytes(), &[0; 14]].concat()
}

fn listeners(from: u64, count: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (from..from + count).flat_map(|number| listener(number as u16, number)).collect();
    bytes.extend(done());
    bytes
}

fn block(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], &kind.to_le_bytes(), &[0, 0], payload].concat()
}

#[test]
fn very_many_descriptors() {
    // One socket in as many processes as there are lines, from the last to the first.
    let lines: String = (0..1_100_000).rev().map(|pid| format!("fd {pid} 3 1\n")).collect();
    let owners = answer("host/socket_owners", &[lines.as_bytes(), b"denied 0\n"]);
    let dump = netns("sock_diag/listeners", &[&listeners(1, 1)]);
    scan(&window(&[dump.clone(), owners.clone()], &[], &[dump, owners]));
}

#[test]
fn very_long_names() {
    let name = [b"10 (".to_vec(), vec![b'A'; 4 << 20], b") S 1 1".to_vec()].concat();
    let owners = answer("host/socket_owners", &[b"fd 10 3 1\ndenied 0\n"]);
    let dump = netns("sock_diag/listeners", &[&listeners(1, 1)]);
    let stat = answer("host/file/proc/10/stat", &[&name[..1 << 20], &name[1 << 20..]]);
    let host = answer("host/file/proc/sys/kernel/hostname", &[&name, b"\n"]);
    scan(&window(&[dump.clone(), owners.clone(), stat.clone(), host], &[], &[dump, owners, stat]));
}

#[test]
fn dumps_of_zeros() {
    let zeros = vec![0; 30 << 20];
    let dump = |what| netns(what, &[&zeros[..]]);
    scan(&window(&[dump("sock_diag/sockets")], &[], &[dump("sock_diag/listeners")]));
    // Messages of nothing but zeros behind their heads.
    let message = [&88u32.to_ne_bytes()[..], &20u16.to_ne_bytes(), &[0; 10], &[2, 1], &[0; 70]].concat();
    let sockets = [message.repeat(300_000), done()].concat();
    scan(&window(&[netns("sock_diag/sockets", &[&sockets])], &[], &[netns("sock_diag/sockets", &[&sockets])]));
}

#[test]
fn very_many_listeners() {
    // Other ones in each look.
    let look = |n: u64| frame(POLL, 2 * SECOND + n, &[netns("sock_diag/listeners", &[&listeners(n * 50_000, 50_000)])]);
    let looks: Vec<Frame> = (1..9).map(look).collect();
    let end = netns("sock_diag/listeners", &[&listeners(500_000, 50_000)]);
    scan(&window(&[], &looks, &[end]));
}

#[test]
fn very_many_destroyed_sockets() {
    let mut message = listener(80, 7);
    message[17] = 7;
    let info = [&236u16.to_ne_bytes()[..], &2u16.to_ne_bytes(), &[0; 232]].concat();
    message[..4].copy_from_slice(&((88 + info.len()) as u32).to_ne_bytes());
    message.extend(info);
    let start = block(1, b"rstdoctor-last-words 1");
    let batch = block(7, &message.repeat(40_000));
    let look = |n: u64| {
        let clock = block(6, (2 * SECOND + n).to_string().as_bytes());
        frame(POLL, 2 * SECOND + n, &[netns("destroyed_sockets", &[&clock, &batch])])
    };
    let looks: Vec<Frame> = (1..4).map(look).collect();
    scan(&window(&[netns("destroyed_sockets", &[&start])], &looks, &[]));
}
