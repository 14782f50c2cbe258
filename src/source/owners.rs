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

impl Owners {
    /// Adds who was seen at another time, where nobody is known.
    pub fn add_all(&mut self, other: Self) {
        for (inode, pids) in other.by_inode {
            self.by_inode.entry(inode).or_insert(pids);
        }
        for (pid, process) in other.processes {
            if self.processes.len() < MAX_PROCESSES {
                self.processes.entry(pid).or_insert(process);
            }
        }
    }

    /// Adds the holders of these sockets, for which nobody was asked, as they were found before: those that are still the same
    /// process.
    pub fn add_known(&mut self, before: &Self, inodes: &BTreeSet<u32>) {
        for inode in inodes {
            let start = |of: &Self, pid: &u32| of.processes.get(pid).map(|process| process.start_ticks);
            let held = before.by_inode.get(inode).into_iter().flatten();
            let same = held.filter(|pid| start(self, pid).is_some() && start(self, pid) == start(before, pid));
            let same: Vec<u32> = same.copied().collect();
            if !same.is_empty() {
                self.by_inode.entry(*inode).or_insert(same);
            }
        }
    }
}

/// Which capabilities show the descriptors of other users' processes: /proc/PID/fd is for its user to read, and its links for those
/// who may trace it (proc_pid_fd(5)).
pub const NEEDS: &str = "CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH";

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
/// out of [`Owners::processes`], whoever has its number then. `Partial` when descriptors of some processes were not readable, or
/// there are too many.
pub fn collect(probe: &mut dyn Probe, inodes: BTreeSet<u64>, also: BTreeSet<u32>) -> (Observed<Owners>, Duration) {
    let mut found = Walked::default();
    let mut pids = also.clone();
    let answer = probe.ask(&Ask::host(What::SocketOwners { inodes, also }), &mut |chunk| found.feed(chunk));
    let mut took = answer.took;
    let lines = found.lines;
    let (mut owners, open, error) = found.finish();
    let mut failure = answer.result.err().or(error.map(Failure::from));
    if let Some(failure) = failure.as_ref().filter(|_| lines == 0) {
        return (Observed::Unavailable(failure.clone()), took);
    }
    pids.extend(owners.by_inode.values().flatten());
    owners.at_limit =
        open.iter().filter(|(pid, open)| open.is_some() && !pids.contains(pid)).map(|(pid, _)| *pid).collect();
    if pids.len() > MAX_PROCESSES {
        let reason = format!("of {} processes only {MAX_PROCESSES} are looked at", pids.len());
        failure = failure.or(Some(Failure::new(FailureKind::NotCollected, reason)));
    }
    for pid in pids.into_iter().take(MAX_PROCESSES) {
        let open = open.get(&pid).copied();
        if open == Some(None) {
            continue;
        }
        let mut read = |file: &str| {
            let (bytes, one) = ask::read(probe, &Ask::host(What::File(format!("/proc/{pid}/{file}"))));
            took += one;
            bytes.ok()
        };
        let (limits, groups, line) = (read("limits"), read("cgroup"), read("cmdline"));
        let run_delay = read("schedstat");
        // Last: if it is still the process that holds the sockets, then all that was read before is of that one, too.
        let Some(Ok(mut process)) = read("stat").map(|stat| process::parse_stat(&stat)) else { continue };
        let open = open.flatten();
        if open.and_then(|open| open.start_ticks).is_some_and(|start| start != process.start_ticks) {
            continue;
        }
        process.open_files = open.map(|open| open.files);
        process.run_delay_ns = run_delay.and_then(|numbers| process::parse_run_delay(&numbers));
        process.open_files_limit = limits.and_then(|limits| process::parse_open_files_limit(&limits));
        if let Some(groups) = groups {
            (process.unit, process.container) = process::parse_cgroup(&groups);
        }
        process.command_line = line.map(|line| process::parse_command_line(&line)).unwrap_or_default();
        owners.processes.insert(pid, process);
    }
    let observed = match failure {
        Some(failure) => Observed::Partial(owners, failure),
        None if owners.denied > 0 => {
            let reason = format!("the files of {} processes are not readable", owners.denied);
            Observed::Partial(owners, Failure::new(FailureKind::Denied, reason).needs(format!("root or {NEEDS}")))
        }
        None => Observed::Full(owners),
    };
    (observed, took)
}

/// What the walk saw of a process that had not ended by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub files: u64,
    /// As [`Process::start_ticks`]; older recordings do not have it.
    pub start_ticks: Option<u64>,
}

/// By process; `None` for one that ended.
pub type OpenFiles = BTreeMap<u32, Option<Open>>;

/// The lines of [`What::SocketOwners`]: `by_inode`, `denied`, and what was seen of each process.
///
/// # Errors
/// A line of unknown form, text that is cut, or text without its `denied` line, which comes last.
pub fn parse(bytes: &[u8]) -> Result<(Owners, OpenFiles), ParseError> {
    let mut found = Walked::default();
    found.feed(bytes);
    let whole = found.denied_seen;
    match found.finish() {
        (.., Some(error)) => Err(error),
        _ if !whole => Err(ParseError::new(SOURCE, None, "has no `denied` line")),
        (owners, open, None) => Ok((owners, open)),
    }
}

#[derive(Default)]
struct Walked {
    /// Socket inode and process, as they come.
    holders: Vec<(u32, u32)>,
    denied: u64,
    open: OpenFiles,
    lines: usize,
    denied_seen: bool,
    error: Option<ParseError>,
}

impl Walked {
    /// The owners without their processes, what was seen of each process, and what stopped the reading.
    fn finish(mut self) -> (Owners, OpenFiles, Option<ParseError>) {
        self.holders.sort_unstable();
        self.holders.dedup();
        let mut owners = Owners { denied: self.denied, ..Owners::default() };
        for (inode, pid) in self.holders {
            owners.by_inode.entry(inode).or_default().push(pid);
        }
        (owners, self.open, self.error)
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
                ["files", pid, count, start, ""] => {
                    let (Ok(pid), Ok(files)) = (pid.parse(), count.parse()) else { return Err(wrong()) };
                    let start_ticks = match start {
                        "" => None,
                        start => Some(start.parse().map_err(|_| wrong())?),
                    };
                    self.open.insert(pid, Some(Open { files, start_ticks }));
                }
                ["ended", pid, "", "", ""] => drop(self.open.insert(pid.parse().map_err(|_| wrong())?, None)),
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

    /// These lines of the walk. Process 20 ends between the two questions.
    struct Fake(&'static [u8]);

    impl Probe for Fake {
        fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
            let known: Option<&[u8]> = match &ask.what {
                What::SocketOwners { .. } => Some(self.0),
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
        let (observed, _) = collect(&mut Fake(LINES), BTreeSet::from([1001, 1002]), BTreeSet::new());
        let Observed::Full(owners) = observed else { panic!("{observed:?}") };
        assert_eq!(owners.by_inode, BTreeMap::from([(1001, vec![10, 20]), (1002, vec![10])]));
        assert_eq!(owners.processes.keys().collect::<Vec<_>>(), [&10]);
        assert_eq!(owners.processes[&10].open_files, Some(12));
        assert_eq!(owners.processes[&10].unit.as_deref(), Some("nginx.service"));
        assert_eq!(owners.processes[&10].open_files_limit, None, "not readable is not unlimited and not zero");
    }

    #[test]
    fn a_later_process_of_the_same_number_is_not_the_owner() {
        let names = |lines| {
            let (observed, _) = collect(&mut Fake(lines), BTreeSet::from([1001]), BTreeSet::new());
            let Observed::Full(owners) = observed else { panic!("{observed:?}") };
            assert_eq!(owners.by_inode, BTreeMap::from([(1001, vec![10])]), "somebody held it");
            owners.processes.into_values().map(|process| process.start_ticks).collect::<Vec<_>>()
        };
        let start = process::parse_stat(process::tests::STAT).unwrap().start_ticks;
        assert_eq!(start, 4_711);
        assert_eq!(names(b"fd 10 3 1001\nfiles 10 12 4711\ndenied 0\n"), [start]);
        assert_eq!(names(b"fd 10 3 1001\nfiles 10 12 4710\ndenied 0\n"), [0; 0]);
        assert_eq!(names(b"fd 10 3 1001\nended 10\ndenied 0\n"), [0; 0]);
    }

    #[test]
    fn more_owners_than_are_looked_at_are_no_full_answer() {
        struct Many(Vec<u8>);
        impl Probe for Many {
            fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
                if matches!(ask.what, What::SocketOwners { .. }) {
                    sink(&self.0);
                    return Answer { result: Ok(()), took: Duration::ZERO };
                }
                Answer { result: Err(Failure::new(FailureKind::Absent, "gone")), took: Duration::ZERO }
            }
        }
        let lines: String = (0..5000).map(|pid| format!("fd {} 3 7\n", pid + 1)).collect();
        let (observed, _) =
            collect(&mut Many((lines + "denied 0\n").into_bytes()), BTreeSet::from([7]), BTreeSet::new());
        let Observed::Partial(_, failure) = observed else { panic!("{observed:?}") };
        assert_eq!(failure.reason, "of 5000 processes only 4096 are looked at");
    }

    #[test]
    fn cut_lines_are_an_error() {
        text::tests::assert_cuts_are_errors(LINES, parse, |_| false);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "((fd|files|ended|denied|x)( [0-9]{1,22}){0,4}\n){0,5}") {
            let _ = parse(text.as_bytes());
        }
    }
}
