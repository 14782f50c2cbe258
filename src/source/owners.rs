//! Which processes hold which sockets, and what state those processes are in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use super::process::{Process, TICKS_PER_SECOND};
use super::redaction::{Redaction, Rule, plain};
use super::{process, text};
use crate::ask::{self, Ask, Probe, What};
use crate::value::{Failure, FailureKind, Observed, ParseError};

/// Holders of the sockets that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    /// Socket inode to the processes that hold it, ascending. One that is not here was not asked for, or no process that could
    /// be read holds it.
    pub by_inode: BTreeMap<u32, Vec<u32>>,
    pub processes: BTreeMap<u32, Process>,
    /// Processes whose descriptors could not be read (another user's, without CAP_SYS_PTRACE).
    pub denied: u64,
    /// Processes that can open no further file, and hold nothing that was asked for.
    pub at_limit: BTreeSet<u32>,
}

const SOURCE: &str = "socket owners";

/// Numbers of processes, descriptors and sockets.
pub const REDACTION: Rule = Rule {
    source: SOURCE,
    asks: |what| matches!(what, What::SocketOwners { .. }),
    redaction: Redaction::Parts(|_, lines| plain(lines).map_or((Vec::new(), false), |lines| (lines, true))),
};

/// A bound for how many processes a recording can make us ask for.
const MAX_PROCESSES: usize = 4096;

/// More descriptors of sockets than any host has asked for: 65,536 listeners in 16 workers each.
const MAX_LINES: usize = 1 << 20;

/// Who holds `inodes`, and in what state those processes and those in `also` are. A process that ends meanwhile is left
/// out of [`Owners::processes`]. `Partial` when descriptors of some processes were not readable.
pub fn collect(probe: &mut dyn Probe, inodes: BTreeSet<u64>, also: BTreeSet<u32>) -> (Observed<Owners>, Duration) {
    let mut found = Found::default();
    let mut pids = also.clone();
    let answer = probe.ask(&Ask::host(What::SocketOwners { inodes, also }), &mut |chunk| found.feed(chunk));
    let mut took = answer.took;
    let lines = found.lines;
    let (mut owners, open_files, error) = found.finish();
    let failure = answer.result.err().or(error.map(Failure::from));
    if let Some(failure) = failure.as_ref().filter(|_| lines == 0) {
        return (Observed::Unavailable(failure.clone()), took);
    }
    pids.extend(owners.by_inode.values().flatten());
    owners.at_limit = open_files.keys().filter(|pid| !pids.contains(pid)).copied().collect();
    for pid in pids.into_iter().take(MAX_PROCESSES) {
        let mut read = |file: &str| {
            let (bytes, one) = ask::read(probe, &Ask::host(What::File(format!("/proc/{pid}/{file}"))));
            took += one;
            bytes.ok()
        };
        let Some(Ok(mut process)) = read("stat").map(|stat| process::parse_stat(&stat)) else { continue };
        process.open_files = open_files.get(&pid).copied();
        process.open_files_limit = read("limits").and_then(|limits| process::parse_open_files_limit(&limits));
        if let Some(groups) = read("cgroup") {
            (process.unit, process.container) = process::parse_cgroup(&groups);
        }
        process.command_line = read("cmdline").map(|line| process::parse_command_line(&line)).unwrap_or_default();
        owners.processes.insert(pid, process);
    }
    let observed = match failure {
        Some(failure) => Observed::Partial(owners, failure),
        None if owners.denied > 0 => {
            let reason = format!("the files of {} processes are not readable", owners.denied);
            Observed::Partial(owners, Failure::new(FailureKind::Denied, reason).needs("root or CAP_SYS_PTRACE"))
        }
        None => Observed::Full(owners),
    };
    (observed, took)
}

/// The lines of [`What::SocketOwners`]: `by_inode`, `denied`, and the open files of each process.
///
/// # Errors
/// A line of unknown form, text that is cut, or text without its `denied` line, which comes last.
pub fn parse(bytes: &[u8]) -> Result<(Owners, BTreeMap<u32, u64>), ParseError> {
    let mut found = Found::default();
    found.feed(bytes);
    let whole = found.denied_seen;
    match found.finish() {
        (.., Some(error)) => Err(error),
        _ if !whole => Err(ParseError::new(SOURCE, None, "has no `denied` line")),
        (owners, open_files, None) => Ok((owners, open_files)),
    }
}

#[derive(Default)]
struct Found {
    /// Socket inode and process, as they come.
    holders: Vec<(u32, u32)>,
    denied: u64,
    open_files: BTreeMap<u32, u64>,
    lines: usize,
    denied_seen: bool,
    error: Option<ParseError>,
}

impl Found {
    /// The owners without their processes, the open files of each process, and what stopped the reading.
    fn finish(mut self) -> (Owners, BTreeMap<u32, u64>, Option<ParseError>) {
        self.holders.sort_unstable();
        self.holders.dedup();
        let mut owners = Owners { denied: self.denied, ..Owners::default() };
        for (inode, pid) in self.holders {
            owners.by_inode.entry(inode).or_default().push(pid);
        }
        (owners, self.open_files, self.error)
    }

    fn feed(&mut self, chunk: &[u8]) {
        if self.error.is_none() && !chunk.is_empty() {
            self.error = self.try_feed(chunk).err();
        }
    }

    fn try_feed(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        for (_, line) in text::lines(SOURCE, chunk)? {
            self.lines += 1;
            let number = self.lines;
            if number > MAX_LINES {
                return Err(ParseError::new(SOURCE, Some(number), "there are more than any host has"));
            }
            let wrong = || ParseError::new(SOURCE, Some(number), format!("{line:?} is not of a known form"));
            let mut words = line.split_whitespace();
            let mut next = || words.next().unwrap_or_default();
            match [next(), next(), next(), next(), next()] {
                ["fd", pid, _, inode, ""] => {
                    let pid = pid.parse().map_err(|_| wrong())?;
                    // sock_diag gives 32 bits of the inode, so a larger one belongs to no socket that was asked for.
                    if let Ok(inode) = u32::try_from(inode.parse::<u64>().map_err(|_| wrong())?) {
                        self.holders.push((inode, pid));
                    }
                }
                ["files", pid, count, "", ""] => {
                    let (Ok(pid), Ok(count)) = (pid.parse(), count.parse()) else { return Err(wrong()) };
                    self.open_files.insert(pid, count);
                }
                ["denied", count, "", "", ""] => {
                    self.denied = count.parse().map_err(|_| wrong())?;
                    self.denied_seen = true;
                }
                _ => return Err(wrong()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ask::Answer;

    const LINES: &[u8] = b"fd 20 4 1001\nfd 10 3 1001\nfd 10 9 1001\nfd 10 5 1002\nfiles 10 12\nfiles 20 7\ndenied 0\n";

    /// Process 20 ends between the two questions.
    struct Fake;

    impl Probe for Fake {
        fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
            let known: Option<&[u8]> = match &ask.what {
                What::SocketOwners { .. } => Some(LINES),
                What::File(path) if path == "/proc/10/stat" => Some(process::tests::STAT),
                What::File(path) if path == "/proc/10/cgroup" => Some(b"0::/system.slice/nginx.service\n"),
                _ => None,
            };
            let result = match known {
                Some(bytes) => {
                    sink(bytes);
                    Ok(())
                }
                None => Err(Failure::new(FailureKind::Absent, "gone")),
            };
            Answer { result, took: Duration::from_micros(1) }
        }
    }

    #[test]
    fn holders_are_sorted_once_each_and_a_vanished_process_is_left_out() {
        let (observed, _) = collect(&mut Fake, BTreeSet::from([1001, 1002]), BTreeSet::new());
        let Observed::Full(owners) = observed else { panic!("{observed:?}") };
        assert_eq!(owners.by_inode, BTreeMap::from([(1001, vec![10, 20]), (1002, vec![10])]));
        assert_eq!(owners.processes.keys().collect::<Vec<_>>(), [&10]);
        assert_eq!(owners.processes[&10].open_files, Some(12));
        assert_eq!(owners.processes[&10].unit.as_deref(), Some("nginx.service"));
        assert_eq!(owners.processes[&10].open_files_limit, None, "not readable is not unlimited and not zero");
    }

    #[test]
    fn cut_lines_are_an_error() {
        text::tests::assert_cuts_are_errors(LINES, parse, |_| false);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "((fd|files|denied|x)( [0-9]{1,22}){0,4}\n){0,5}") {
            let _ = parse(text.as_bytes());
        }
    }
}
