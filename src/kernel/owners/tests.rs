use super::*;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

fn inode_of(listener: &TcpListener) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino()
}

fn lines(inodes: BTreeSet<u64>, also: BTreeSet<u32>) -> Vec<String> {
    lines_of(inodes, also, Pace::DEFAULT)
}

fn lines_of(inodes: BTreeSet<u64>, also: BTreeSet<u32>, pace: Pace) -> Vec<String> {
    let mut text = Vec::new();
    walk(&inodes, &also, &BTreeSet::new(), pace, &mut |bytes| {
        assert!(bytes.ends_with(b"\n"));
        text.extend_from_slice(bytes);
    })
    .unwrap();
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

/// Open files and start of a process.
fn files_of(lines: &[String], pid: u32) -> (u64, u64) {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("files {pid} "))).expect("counted");
    let (files, started) = line.split_once(' ').expect("two numbers");
    (files.parse().unwrap(), started.parse().unwrap())
}

#[test]
fn the_directory_of_a_process_that_ended_is_nobody_elses() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let fds = open_directory(CWD, &std::ffi::CString::new(format!("/proc/{}/fd", child.id())).unwrap()).unwrap();
    assert!(start(&fds).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(start(&fds), None);
}

/// How many descriptors this process has matters to both.
static DESCRIPTORS: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn finds_late_sockets_among_very_many_and_one_that_a_child_inherited() {
    let _lock = lock();
    let limit = Rlimit { current: Some(8192), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = || socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    let mut kept: Vec<_> = (0..2000).map(|_| open()).collect();
    let late = TcpListener::bind("127.0.0.1:0").unwrap();
    // A number that the order of the inodes does not lead to.
    let moved = rustix::io::fcntl_dupfd_cloexec(TcpListener::bind("127.0.0.1:0").unwrap(), 7000).unwrap();
    kept.extend((0..1000).map(|_| open()));
    let moved_inode = rustix::fs::fstat(&moved).unwrap().st_ino;
    let (pid, inode) = (std::process::id(), inode_of(&late));
    assert!(late.as_raw_fd() > FIRST as i32);
    let found = lines(BTreeSet::from([inode, moved_inode]), BTreeSet::new());
    assert!(found.contains(&format!("fd {pid} {} {inode}", late.as_raw_fd())), "{found:?}");
    assert!(found.contains(&format!("fd {pid} {} {moved_inode}", moved.as_raw_fd())), "{found:?}");
    assert!(files_of(&found, pid).0 >= 3002);
    let nobody = lines(BTreeSet::from([u64::MAX]), BTreeSet::new());
    assert!(!nobody.iter().any(|line| line.starts_with("fd ")), "{nobody:?}");

    // The descriptor a child inherits as its stdin has another number and few beside it.
    let mut child = Command::new("sleep").arg("60").stdin(OwnedFd::from(late)).spawn().unwrap();
    let held = lines(BTreeSet::from([inode]), BTreeSet::new());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(held.contains(&format!("fd {} 0 {inode}", child.id())), "{held:?}");
}

/// On a node of a thousand processes a socket is shared by those of one network namespace, and nobody else is read on for it.
#[test]
fn a_long_walk_goes_on_only_among_the_neighbours_of_those_that_hold() {
    let _lock = lock();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode_of(&listener);
    let start = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let stdin = OwnedFd::from(listener.try_clone().unwrap());
        command.args(arguments).stdin(stdin).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut near = start("sleep", &["60"]);
    let mut far = start("unshare", &["-n", "sleep", "60"]);
    let netns = |pid: u32| trace_context::netns(Path::new(&format!("/proc/{pid}/ns/net")));
    let own = netns(std::process::id());
    while far.try_wait().unwrap().is_none() && netns(far.id()) == own {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let entered = far.try_wait().unwrap().is_none();
    let holders = |long: u64| {
        let lines = lines_of(BTreeSet::from([inode]), BTreeSet::new(), Pace { long, together: 1 });
        [near.id(), far.id()].map(|pid| lines.contains(&format!("fd {pid} 0 {inode}")))
    };
    // This process is read before its children, unless numbers began anew between.
    let in_order = std::process::id() < near.id().min(far.id());
    let (whole, long) = (holders(u64::MAX), holders(1));
    for child in [&mut near, &mut far] {
        let _ = child.kill();
        child.wait().unwrap();
    }
    if !entered || !in_order {
        let why = if entered { "numbers of processes began anew" } else { "a network namespace of its own needs root" };
        return writeln!(io::stderr(), "skipped: {why}").unwrap();
    }
    assert_eq!((whole, long), ([true, true], [true, false]));
}

#[test]
fn finds_this_process_by_its_socket_and_counts_its_files() {
    let _lock = lock();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // A descriptor far above the others, so that counting up from 0 does not reach it.
    let copy = rustix::io::fcntl_dupfd_cloexec(&listener, 900).unwrap();
    let high = copy.as_raw_fd();
    let (pid, inode) = (std::process::id(), inode_of(&listener));
    let lines = lines(BTreeSet::from([inode]), BTreeSet::new());
    assert!(lines.contains(&format!("fd {pid} {} {inode}", listener.as_raw_fd())), "{lines:?}");
    assert!(lines.contains(&format!("fd {pid} {high} {inode}")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("fd ")).count(), 2, "{lines:?}");
    let own = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    let (files, started) = files_of(&lines, pid);
    assert_eq!(started, process::parse_stat(&own).unwrap().start_ticks);
    assert!(files >= 3);
    assert_eq!(lines.iter().filter(|line| line.starts_with("denied ")).count(), 1);
}

/// One of the kernel's own, say: it must not cost a whole walk each time, nor hide what has a holder.
#[test]
fn a_socket_that_nobody_holds_is_searched_for_once() {
    let _lock = lock();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode_of(&listener);
    let mut owners = Owners::default();
    for _ in 0..2 {
        let mut text = Vec::new();
        owners
            .look(&BTreeSet::from([inode, u64::MAX]), &BTreeSet::new(), &mut |part| text.extend_from_slice(part))
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("fd {} {} {inode}\n", std::process::id(), listener.as_raw_fd())), "{text}");
        assert_eq!(owners.nobodys, BTreeSet::from([u64::MAX]));
    }
}

#[test]
fn counts_the_files_of_a_process_that_was_named() {
    let pid = std::process::id();
    let lines = lines(BTreeSet::new(), BTreeSet::from([pid, u32::MAX]));
    assert_eq!(lines.len(), 2, "one files line, one denied line: {lines:?}");
    assert!(lines[0].starts_with(&format!("files {pid} ")));
    assert_eq!(lines[1], "denied 0");
}

#[test]
fn only_sockets_have_socket_inodes() {
    assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
    assert_eq!(socket_inode(b"pipe:[4711]"), None);
    assert_eq!(socket_inode(b"/tmp/socket:[1]"), None);
    assert_eq!(socket_inode(b"socket:[]"), None);
}

#[test]
fn kernel_threads_are_told_apart() {
    assert!(!is_kernel_thread(std::process::id()));
    match std::fs::read_to_string("/proc/2/comm") {
        Ok(name) if name == "kthreadd\n" => assert!(is_kernel_thread(2)),
        // Not by eprintln!, whose output cargo hides.
        _ => writeln!(io::stderr(), "skipped: kthreadd is not visible in this pid namespace").unwrap(),
    }
}
