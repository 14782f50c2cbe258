//! Which processes hold which sockets: a walk of /proc/PID/fd that costs about 2 us per descriptor that is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, Mode, OFlags, RawDir, fstat, openat, readlinkat_raw};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::at_once;
use super::trace_context;
use crate::source::process;
use crate::value::{Failure, FailureKind, NetnsId};

/// So many descriptors are read in every process.
const FIRST: u32 = 512;
/// And so many once [`Pace::long`] is reached: on a big node a process has its listeners long before 400 connections.
const FEWER: u32 = 64;
/// Processes with more of them that are kept open until all others were read, if so many files may be open.
const MOST_LARGE: usize = 4096;
/// Distance of the descriptors that tell where in time the others are.
const STRIDE: u32 = 64;
/// Inodes that a CPU takes at once: fs/inode.c LAST_INO_BATCH.
const BATCH: u64 = 1024;
/// A limit of open files below this is no limit of a server's, and is not looked for.
const FEW: u64 = 32;
/// Each so many walks look for the holders of all sockets again: one may have been handed on.
const ANEW: u32 = 12;
/// Lines are handed over in pieces of about this size.
const FLUSH: usize = 32 << 10;

/// How a walk goes through the processes.
#[derive(Clone, Copy)]
struct Pace {
    /// Descriptors after which, as soon as every inode has a holder, only processes of the same network namespaces as these are
    /// read on: those that share a socket, while a big node has a thousand others.
    long: u64,
    /// So many processes are read by all CPUs together; what they hold is known to the next ones only.
    together: usize,
}

impl Pace {
    /// 0.1 s of one CPU.
    const DEFAULT: Self = Self { long: 50_000, together: 256 };
}

/// What walks learn for those after them.
#[derive(Default)]
pub(super) struct Owners {
    /// Sockets of which a whole walk found no holder: of the kernel itself (NFS), or of processes that may not be read. Later
    /// walks do not go on for their sake.
    nobodys: BTreeSet<u64>,
    walks: u32,
}

impl Owners {
    /// Answers [`What::SocketOwners`](crate::ask::What::SocketOwners) in its text format.
    ///
    /// Programs open their listeners before they have many connections, and what is inherited keeps its number. So the first
    /// descriptors of every process come first; of those that have more, the rest is read only while an inode is missing.
    ///
    /// # Errors
    /// `Broken` when /proc itself cannot be listed. A process that ends meanwhile is left out; one that may not be read is
    /// counted as denied.
    pub(super) fn look(
        &mut self,
        inodes: &BTreeSet<u64>,
        also: &BTreeSet<u32>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        if self.walks.is_multiple_of(ANEW) {
            self.nobodys.clear();
        }
        self.walks = self.walks.wrapping_add(1);
        let missing = walk(inodes, also, &self.nobodys, Pace::DEFAULT, sink)?;
        self.nobodys.extend(missing);
        Ok(())
    }
}

/// The inodes, but for those of `nobodys`, that nobody holds.
fn walk(
    inodes: &BTreeSet<u64>,
    also: &BTreeSet<u32>,
    nobodys: &BTreeSet<u64>,
    pace: Pace,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<BTreeSet<u64>, Failure> {
    let broken = |error: io::Error| Failure::new(FailureKind::Broken, format!("list of /proc: {error}"));
    let proc = open_directory(CWD, c"/proc").map_err(broken)?;
    let mut walk = Walk {
        missing: inodes.difference(nobodys).copied().collect(),
        read: 0,
        holders: BTreeSet::new(),
        high: BTreeSet::new(),
        sink,
    };
    let mut pids = Vec::new();
    list(&proc, |pid| {
        if !inodes.is_empty() || also.contains(&pid) {
            pids.push(pid);
        }
    })
    .map_err(broken)?;
    let (size_counts, most_large) = (size_counts(&proc), most_large());
    let (mut large, mut denied) = (Vec::new(), 0u64);
    let mut around = None;
    for pids in pids.chunks(pace.together) {
        if around.is_none() && walk.read >= pace.long && walk.missing.is_empty() {
            around = Some(walk.holders.iter().filter_map(|pid| netns(*pid)).collect());
        }
        let read_before = walk.read;
        let deferred = AtomicUsize::new(large.len());
        let look = |pid: u32| {
            let first = if read_before < pace.long { FIRST } else { FEWER };
            let mut part = Part::new(inodes);
            let elsewhere = || around.as_ref().is_some_and(|around| is_elsewhere(pid, around));
            let look = !inodes.is_empty() && !elsewhere();
            let defer = || deferred.fetch_add(1, Ordering::Relaxed) < most_large;
            let left = part.process(&proc, pid, also.contains(&pid), size_counts, look.then_some(first), defer);
            (pid, part, left)
        };
        let mut read = at_once::share(pids.to_vec(), look);
        read.sort_unstable_by_key(|(pid, ..)| *pid);
        for (pid, part, left) in read {
            walk.take(part);
            match left {
                Ok(left) => large.extend(left),
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EACCES | libc::EPERM | libc::EMFILE | libc::ENFILE)
                    ) =>
                {
                    denied += u64::from(!is_kernel_thread(pid));
                }
                // ENOENT or ESRCH: it ended while we looked.
                Err(_) => {}
            }
        }
    }
    let Walk { missing, high, sink, .. } = walk;
    let mut part = Part { missing, high, ..Part::new(inodes) };
    part.rest(&mut large, sink);
    let _ = writeln!(part.lines, "denied {denied}");
    sink(&part.lines);
    Ok(part.missing)
}

/// It has nothing to do with those network namespaces.
fn is_elsewhere(pid: u32, around: &BTreeSet<NetnsId>) -> bool {
    netns(pid).is_some_and(|netns| !around.contains(&netns))
}

fn netns(pid: u32) -> Option<NetnsId> {
    trace_context::netns(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// What is known after the processes that were read.
struct Walk<'a> {
    /// Those of which no holder is known yet.
    missing: BTreeSet<u64>,
    /// How many descriptors were read.
    read: u64,
    /// Processes that hold one of those that are looked for.
    holders: BTreeSet<u32>,
    /// Numbers from [`FEWER`] on under which one was found.
    high: BTreeSet<u32>,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl Walk<'_> {
    fn take(&mut self, part: Part<'_>) {
        self.read += part.read;
        self.high.extend(part.high);
        for (pid, inode) in part.held {
            self.holders.insert(pid);
            self.missing.remove(&inode);
        }
        if !part.lines.is_empty() {
            (self.sink)(&part.lines);
        }
    }
}

/// A process whose descriptors are looked at.
struct Open {
    pid: u32,
    fds: OwnedFd,
    open: u64,
    /// How many of them were seen.
    seen: u64,
    /// The first number that was not looked at.
    next: u64,
    /// It holds a socket that was asked for, or is named itself.
    show: bool,
}

/// What stands under the number of a descriptor.
enum Seen {
    Nothing,
    /// This inode.
    Socket(u64),
    Other,
    /// It may not be read, as nothing of its process: ptrace_may_access(), fs/proc/base.c.
    Denied,
}

/// The look at one process after the other, and what it found.
struct Part<'a> {
    inodes: &'a BTreeSet<u64>,
    /// Those that are looked for in the rest of very many descriptors.
    missing: BTreeSet<u64>,
    read: u64,
    /// Processes and inodes.
    held: Vec<(u32, u64)>,
    high: BTreeSet<u32>,
    lines: Vec<u8>,
}

impl<'a> Part<'a> {
    fn new(inodes: &'a BTreeSet<u64>) -> Self {
        let (missing, high) = (BTreeSet::new(), BTreeSet::new());
        Self { inodes, missing, read: 0, held: Vec::new(), high, lines: Vec::new() }
    }

    /// Reads the descriptors of a process. Of those that have more than `first`, only so many where the rest may be deferred; none
    /// without that number.
    fn process(
        &mut self,
        proc: &OwnedFd,
        pid: u32,
        wanted: bool,
        size_counts: bool,
        first: Option<u32>,
        defer: impl FnOnce() -> bool,
    ) -> io::Result<Option<Open>> {
        let mut path = Vec::with_capacity(16);
        let _ = write!(path, "{pid}/fd\0");
        let fds = open_directory(proc, CStr::from_bytes_until_nul(&path).unwrap_or_default())?;
        let mut count = None;
        if size_counts {
            let open = size(&fds)?;
            // Kernel threads and zombies hold nothing.
            if open == 0 && !wanted {
                return Ok(None);
            }
            count = Some(open);
        }
        let mut show = wanted || count.is_some_and(|open| at_limit(&fds, open));
        let Some(open) = count else {
            let mut listed = 0u64;
            list(&fds, |fd| {
                listed += 1;
                if first.is_some() {
                    self.descriptor(&fds, pid, fd, &mut show);
                }
            })?;
            self.files(&fds, pid, listed, show);
            return Ok(None);
        };
        let mut process = Open { pid, fds, open, seen: 0, next: 0, show };
        if let Some(first) = first.map(u64::from) {
            if open > first && defer() {
                self.by_number(&mut process, first, |_| false);
                return Ok(Some(process));
            }
            self.descriptors(&mut process, |_| false)?;
        }
        self.files(&process.fds, pid, open, process.show);
        Ok(None)
    }

    /// Looks at the descriptors that were not looked at, until it is `enough`.
    fn descriptors(&mut self, process: &mut Open, enough: fn(&Self) -> bool) -> io::Result<()> {
        // Descriptors are given out lowest first, so nearly always 0..open are all of them, and asking for them by number
        // saves listing the directory (418 against 600 ms for 238,000 descriptors).
        self.by_number(process, reach(process.open), enough);
        // What was opened meanwhile has a low number and was seen in place of a high one.
        let all_seen = process.seen >= process.open && size(&process.fds).is_ok_and(|open| open <= process.open);
        if all_seen || enough(self) {
            return Ok(());
        }
        let Open { pid, fds, next, show, .. } = process;
        list(&*fds, |fd| {
            if u64::from(fd) >= *next && !enough(self) {
                self.descriptor(fds, *pid, fd, show);
            }
        })
    }

    /// Tries the numbers below `end`, until all descriptors of the process were seen or it is `enough`.
    fn by_number(&mut self, process: &mut Open, end: u64, enough: fn(&Self) -> bool) {
        let Open { pid, fds, open, seen, next, show } = process;
        while *seen < *open && *next < end && !enough(self) {
            let Ok(fd) = u32::try_from(*next) else { break };
            match self.descriptor(fds, *pid, fd, show) {
                Seen::Nothing => {}
                Seen::Other | Seen::Socket(_) => *seen += 1,
                // Then all are.
                Seen::Denied => *seen = *open,
            }
            *next += 1;
        }
    }

    /// The processes with very many descriptors, until every inode has a holder.
    fn rest(&mut self, large: &mut [Open], sink: &mut dyn FnMut(&[u8])) {
        for process in large.iter_mut() {
            self.near_in_time(process);
        }
        for process in large.iter_mut() {
            if !self.missing.is_empty() {
                // It ended: nobody holds anything there any more.
                let _ = self.descriptors(process, |part| part.missing.is_empty());
            }
        }
        // What workers inherited has one number in all of them.
        let high = std::mem::take(&mut self.high);
        for process in large {
            for fd in &high {
                self.descriptor(&process.fds, process.pid, *fd, &mut process.show);
            }
            self.files(&process.fds, process.pid, process.open, process.show);
            if self.lines.len() >= FLUSH {
                sink(&self.lines);
                self.lines.clear();
            }
        }
    }

    /// Looks where a missing inode is likely. Both numbers grow while a program opens sockets: the descriptor as the lowest
    /// that is free, the inode within a batch of its CPU (fs/inode.c get_next_ino). So it is close to one that was opened
    /// at about the same time.
    fn near_in_time(&mut self, process: &mut Open) {
        let Open { pid, fds, open, next, show, .. } = process;
        let (first, end) = (u32::try_from(*next).unwrap_or(u32::MAX), u32::try_from(*open).unwrap_or(u32::MAX));
        if self.missing.is_empty() || end < first.saturating_add(8 * STRIDE) {
            return;
        }
        let mut known = BTreeMap::new();
        for fd in (first..end).step_by(STRIDE as usize) {
            if let Seen::Socket(inode) = self.descriptor(fds, *pid, fd, show) {
                known.insert(inode, fd);
            }
        }
        // Where the numbers have nothing to do with each other any more, it costs half of a look at all of them.
        let mut left = end / 2;
        for inode in self.missing.clone() {
            let below = known
                .range(inode.saturating_sub(BATCH)..inode)
                .next_back()
                .map(|(_, fd)| *fd..fd.saturating_add(STRIDE));
            let above =
                known.range(inode..inode.saturating_add(BATCH)).next().map(|(_, fd)| fd.saturating_sub(STRIDE)..*fd);
            for fd in below.into_iter().chain(above).flatten() {
                if left == 0 || !self.missing.contains(&inode) {
                    break;
                }
                left -= 1;
                self.descriptor(fds, *pid, fd, show);
            }
        }
    }

    /// Looks at one descriptor.
    fn descriptor(&mut self, fds: &OwnedFd, pid: u32, fd: u32, matched: &mut bool) -> Seen {
        let mut name = [0u8; 12];
        let _ = write!(name.as_mut_slice(), "{fd}");
        let mut target = [MaybeUninit::uninit(); 32];
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        self.read += 1;
        let target = match readlinkat_raw(fds, name, &mut target) {
            Ok((target, _)) => target,
            Err(Errno::ACCESS | Errno::PERM) => return Seen::Denied,
            Err(_) => return Seen::Nothing,
        };
        let Some(inode) = socket_inode(target) else { return Seen::Other };
        if self.inodes.contains(&inode) {
            *matched = true;
            self.held.push((pid, inode));
            self.missing.remove(&inode);
            if fd >= FEWER {
                self.high.insert(fd);
            }
            let _ = writeln!(self.lines, "fd {pid} {fd} {inode}");
        }
        Seen::Socket(inode)
    }

    /// After all descriptors of the process were read: that it has not ended yet makes all lines with its number its own.
    fn files(&mut self, fds: &OwnedFd, pid: u32, count: u64, show: bool) {
        if !show {
            return;
        }
        let _ = match start(fds) {
            Some(start) => writeln!(self.lines, "files {pid} {count} {start}"),
            None => writeln!(self.lines, "ended {pid}"),
        };
    }
}

/// How many directories may stay open: a quarter of the files that this process may have.
fn most_large() -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(MOST_LARGE, |limit| MOST_LARGE.min(limit / 4))
}

/// How far numbers are tried one by one, of a process that has `open` descriptors: a number that is not there costs half of one
/// that is, and shells leave holes (10, 255).
fn reach(open: u64) -> u64 {
    open.saturating_add(open / 2).saturating_add(8)
}

/// It can open no file more.
fn at_limit(fds: &OwnedFd, open: u64) -> bool {
    open >= FEW
        && beside(fds, c"../limits")
            .and_then(|limits| process::parse_open_files_limit(&limits))
            .is_some_and(|limit| open >= limit)
}

/// When the process started whose descriptors these are, clock ticks since boot; `None` once it has ended.
fn start(fds: &OwnedFd) -> Option<u64> {
    process::parse_stat(&beside(fds, c"../stat")?).ok().map(|process| process.start_ticks)
}

/// A file beside the open directory /proc/PID/fd. By that directory and not by the number, which another process may have
/// been given meanwhile: an open directory stays that of its process, and has nothing in it any more once that has ended
/// (fs/proc/base.c proc_pident_lookup()).
fn beside(fds: &OwnedFd, path: &CStr) -> Option<Vec<u8>> {
    let file = openat(fds, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).ok()?;
    Some(bytes)
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
    std::str::from_utf8(after_name).is_ok_and(trace_context::is_kernel_thread)
}

#[cfg(test)]
mod tests;
