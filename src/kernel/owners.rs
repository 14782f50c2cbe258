//! Which processes hold which sockets: a walk of /proc/PID/fd that costs about 2 us per open file.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, fstat, openat, readlinkat_raw};

use crate::value::{Failure, FailureKind};

/// Lines are handed over in pieces of about this size.
const FLUSH: usize = 32 << 10;
/// `PF_KTHREAD` of include/linux/sched.h, in the flags of /proc/PID/stat.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Answers [`What::SocketOwners`](crate::ask::What::SocketOwners) in its text format.
///
/// # Errors
/// `Broken` when /proc itself cannot be listed. A process that ends meanwhile is left out; one that may not be read is
/// counted as denied.
pub(super) fn socket_owners(
    inodes: &BTreeSet<u64>,
    also: &BTreeSet<u32>,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::new(FailureKind::Broken, format!("list of /proc: {error}"));
    let proc = open_directory(CWD, c"/proc").map_err(broken)?;
    let mut walk = Walk { inodes, size_counts: size_counts(&proc), lines: Vec::new(), sink };
    let mut denied = 0u64;
    let mut pids = Vec::new();
    list(&proc, |pid| pids.push(pid)).map_err(broken)?;
    for pid in pids {
        if inodes.is_empty() && !also.contains(&pid) {
            continue;
        }
        match walk.process(&proc, pid, also.contains(&pid)) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                denied += u64::from(!is_kernel_thread(pid));
            }
            // ENOENT or ESRCH: it ended while we looked.
            Err(_) => {}
        }
    }
    let _ = writeln!(walk.lines, "denied {denied}");
    walk.flush();
    Ok(())
}

struct Walk<'a> {
    inodes: &'a BTreeSet<u64>,
    size_counts: bool,
    lines: Vec<u8>,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl Walk<'_> {
    fn process(&mut self, proc: &OwnedFd, pid: u32, wanted: bool) -> io::Result<()> {
        let mut path = Vec::with_capacity(16);
        let _ = write!(path, "{pid}/fd\0");
        let fds = open_directory(proc, CStr::from_bytes_until_nul(&path).unwrap_or_default())?;
        let mut count = None;
        if self.size_counts {
            let open = size(&fds)?;
            // Kernel threads and zombies hold nothing.
            if open == 0 && !wanted {
                return Ok(());
            }
            count = Some(open);
        }
        let mut matched = false;
        let mut next = 0;
        if let Some(open) = count
            && !self.inodes.is_empty()
        {
            // Descriptors are given out lowest first, so nearly always 0..open are all of them, and asking for them
            // by number saves listing the directory (418 against 600 ms for 238,000 descriptors).
            let mut seen = 0;
            while seen < open && u64::from(next) < open.saturating_mul(2).saturating_add(64) {
                seen += u64::from(self.descriptor(&fds, pid, next, &mut matched));
                next += 1;
            }
            if seen >= open {
                return self.files(pid, open, matched || wanted);
            }
        }
        let mut listed = 0u64;
        list(&fds, |fd| {
            listed += 1;
            if fd >= next && !self.inodes.is_empty() {
                self.descriptor(&fds, pid, fd, &mut matched);
            }
        })?;
        self.files(pid, count.unwrap_or(listed), matched || wanted)
    }

    /// Looks at one descriptor. False if there is none of that number.
    fn descriptor(&mut self, fds: &OwnedFd, pid: u32, fd: u32, matched: &mut bool) -> bool {
        let mut name = [0u8; 12];
        let _ = write!(name.as_mut_slice(), "{fd}");
        let mut target = [MaybeUninit::uninit(); 32];
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        let Ok((target, _)) = readlinkat_raw(fds, name, &mut target) else { return false };
        if let Some(inode) = socket_inode(target)
            && self.inodes.contains(&inode)
        {
            *matched = true;
            let _ = writeln!(self.lines, "fd {pid} {fd} {inode}");
            self.flush_if_large();
        }
        true
    }

    fn files(&mut self, pid: u32, count: u64, show: bool) -> io::Result<()> {
        if show {
            let _ = writeln!(self.lines, "files {pid} {count}");
            self.flush_if_large();
        }
        Ok(())
    }

    fn flush_if_large(&mut self) {
        if self.lines.len() >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        (self.sink)(&self.lines);
        self.lines.clear();
    }
}

/// `socket:[INODE]`, fs/sockfs.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn open_directory(at: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    Ok(openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// st_size of a directory.
fn size(directory: &OwnedFd) -> io::Result<u64> {
    Ok(u64::try_from(fstat(directory)?.st_size).unwrap_or(0))
}

/// Since Linux 6.2 st_size of /proc/PID/fd is the number of open files, before it is always 0. This process has at
/// least one file open, so its own directory tells.
fn size_counts(proc: &OwnedFd) -> bool {
    open_directory(proc, c"self/fd").and_then(|fds| size(&fds)).is_ok_and(|open| open > 0)
}

/// Calls `each` with every entry of the directory whose name is a number.
fn list(directory: &OwnedFd, mut each: impl FnMut(u32)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        if let Some(number) = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            each(number);
        }
    }
    Ok(())
}

/// Kernel threads hold no descriptors, so one that may not be read hides nothing.
fn is_kernel_thread(pid: u32) -> bool {
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { return false };
    let after_name = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 1..)).unwrap_or_default();
    // proc_pid_stat(5): state, ppid, pgrp, session, tty_nr, tpgid, then flags.
    std::str::from_utf8(after_name)
        .ok()
        .and_then(|fields| fields.split_ascii_whitespace().nth(6)?.parse::<u64>().ok())
        .is_some_and(|flags| flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    fn inode_of(listener: &TcpListener) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino()
    }

    fn lines(inodes: BTreeSet<u64>, also: BTreeSet<u32>) -> Vec<String> {
        let mut text = Vec::new();
        socket_owners(&inodes, &also, &mut |bytes| {
            assert!(bytes.ends_with(b"\n"));
            text.extend_from_slice(bytes);
        })
        .unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn finds_this_process_by_its_socket_and_counts_its_files() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // A descriptor far above the others, so that counting up from 0 does not reach it.
        let copy = rustix::io::fcntl_dupfd_cloexec(&listener, 900).unwrap();
        let high = copy.as_raw_fd();
        let (pid, inode) = (std::process::id(), inode_of(&listener));
        let lines = lines(BTreeSet::from([inode]), BTreeSet::new());
        assert!(lines.contains(&format!("fd {pid} {} {inode}", listener.as_raw_fd())), "{lines:?}");
        assert!(lines.contains(&format!("fd {pid} {high} {inode}")), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("fd ")).count(), 2, "{lines:?}");
        let files = lines.iter().find_map(|line| line.strip_prefix(&format!("files {pid} "))).expect("counted");
        assert!(files.parse::<u64>().unwrap() >= 3);
        assert_eq!(lines.iter().filter(|line| line.starts_with("denied ")).count(), 1);
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
}
