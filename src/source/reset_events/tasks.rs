//! Which process a pid was at the time of an event, also when it is gone now: a list of those alive at the start, kept
//! current by perf's side-band records.

use std::collections::{BTreeSet, HashMap};

use super::record::Change;
use crate::source::text::unescape;
use crate::value::{NetnsId, outside};

/// More processes than this are not remembered.
const MAX_TASKS: usize = 1 << 18;

/// Drains for which a process that exited is remembered, 1 to 4 s. Its first thread may be gone long before the last one, which
/// closes the sockets: one that waits for memory, say.
const REMEMBERED: u8 = 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub name: String,
    pub netns: Option<NetnsId>,
    pub kernel: bool,
}

#[derive(Debug, Default)]
pub struct Tasks {
    by_pid: HashMap<u32, Process>,
    /// Threads that entered a network namespace of their own (setns(2), unshare(2)).
    threads: HashMap<u32, NetnsId>,
    /// Side-band records of this drain, to be put in order of time.
    queue: Vec<(u64, Change)>,
    /// Exited, and for how many drains they are still remembered.
    exited: HashMap<u32, u8>,
}

impl Tasks {
    /// `PID NETNS|- user|kernel COMM`; a line that is not of this form is skipped. Returns the namespaces
    /// named.
    pub fn list(&mut self, text: &str) -> BTreeSet<NetnsId> {
        let mut namespaces = BTreeSet::new();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            let (Some(pid), Some(netns), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(pid) = pid.parse() else { continue };
            let name = outside::comm(&unescape(words.next().unwrap_or("").as_bytes()));
            let netns = netns.parse().ok().map(NetnsId);
            namespaces.extend(netns);
            self.insert(pid, Process { name, netns, kernel: kind == "kernel" });
        }
        namespaces
    }

    fn insert(&mut self, pid: u32, process: Process) {
        if self.by_pid.len() < MAX_TASKS || self.by_pid.contains_key(&pid) {
            self.by_pid.insert(pid, process);
        }
    }

    /// Takes a side-band record. The CPUs come one after the other, so it waits for [`Self::settle`].
    pub fn see(&mut self, time: u64, change: Change) {
        if self.queue.len() >= MAX_TASKS {
            self.settle();
        }
        self.queue.push((time, change));
    }

    /// All side-band records of a drain are here.
    pub fn settle(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_by_key(|(time, _)| *time);
        queue.drain(..).for_each(|(_, change)| self.apply(change));
        self.queue = queue;
    }

    fn apply(&mut self, change: Change) {
        match change {
            // The name and namespaces of a process are those of its first thread.
            Change::Comm { pid, tid, name } if pid == tid => {
                let name = outside::comm(&name);
                match self.by_pid.get_mut(&pid) {
                    Some(process) => process.name = name,
                    None => self.insert(pid, Process { name, ..Process::default() }),
                }
            }
            Change::Fork { pid, parent } if pid != parent => {
                let inherited = self.by_pid.get(&parent).cloned().unwrap_or_default();
                self.exited.remove(&pid);
                self.insert(pid, Process { kernel: false, ..inherited });
            }
            Change::Exit { tid } => drop(self.exited.insert(tid, REMEMBERED)),
            Change::Namespaces { pid, tid, net } if pid == tid => match self.by_pid.get_mut(&pid) {
                Some(process) => process.netns = Some(NetnsId(net)),
                None => self.insert(pid, Process { netns: Some(NetnsId(net)), ..Process::default() }),
            },
            Change::Namespaces { pid, tid, net } => {
                let same = self.by_pid.get(&pid).is_some_and(|process| process.netns == Some(NetnsId(net)));
                match same {
                    true => drop(self.threads.remove(&tid)),
                    false if self.threads.len() < MAX_TASKS => drop(self.threads.insert(tid, NetnsId(net))),
                    false => {}
                }
            }
            _ => {}
        }
    }

    /// A new drain begins.
    pub fn next_drain(&mut self) {
        self.settle();
        let (by_pid, threads) = (&mut self.by_pid, &mut self.threads);
        self.exited.retain(|pid, drains| {
            *drains -= 1;
            if *drains == 0 {
                by_pid.remove(pid);
                threads.remove(pid);
            }
            *drains > 0
        });
    }

    /// Another process of this name is there, or was until this drain.
    pub fn has_siblings(&self, pid: u32, name: &str) -> bool {
        let lives = |pid: &u32| self.exited.get(pid).is_none_or(|drains| *drains == REMEMBERED);
        self.by_pid.iter().any(|(other, process)| *other != pid && process.name == name && lives(other))
    }

    /// It ended a few drains ago at most.
    pub fn has_exited(&self, pid: u32) -> bool {
        self.exited.contains_key(&pid)
    }

    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// Network namespace of a thread of this process.
    pub fn netns(&self, process: Option<&Process>, tid: u32) -> Option<NetnsId> {
        self.threads.get(&tid).copied().or_else(|| process?.netns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lived_process_keeps_its_name_until_its_samples_are_read() {
        let mut tasks = Tasks::default();
        tasks.list("10 4026531840 user bash\n11 4026531840 kernel ksoftirqd/0\n12 - user od\\nd na\\\\me\nrubbish\n");
        assert_eq!(tasks.get(12).map(|p| p.name.as_str()), Some("od\nd na\\me"));
        assert!(tasks.get(11).is_some_and(|p| p.kernel));
        // The exec was seen by a CPU whose ring is read before that of the fork.
        tasks.see(2, Change::Comm { pid: 20, tid: 20, name: b"server".to_vec() });
        tasks.see(3, Change::Comm { pid: 20, tid: 21, name: b"a thread".to_vec() });
        tasks.see(4, Change::Namespaces { pid: 20, tid: 20, net: 7 });
        tasks.see(1, Change::Fork { pid: 20, parent: 10 });
        tasks.see(1, Change::Fork { pid: 30, parent: 10 });
        tasks.see(5, Change::Namespaces { pid: 20, tid: 21, net: 8 });
        tasks.settle();
        assert_eq!(tasks.get(30).map(|p| p.name.as_str()), Some("bash"));
        let netns = |tid| tasks.netns(tasks.get(20), tid);
        assert_eq!((netns(20), netns(21)), (Some(NetnsId(7)), Some(NetnsId(8))));
        tasks.see(6, Change::Exit { tid: 21 });
        tasks.see(7, Change::Exit { tid: 20 });
        tasks.settle();
        let server = Process { name: "server".to_owned(), netns: Some(NetnsId(7)), kernel: false };
        assert_eq!(tasks.get(20), Some(&server));
        assert!(tasks.has_siblings(21, "server"), "it was there in this drain");
        tasks.next_drain();
        assert_eq!(tasks.get(20), Some(&server), "another thread of it may still close its sockets");
        assert!(!tasks.has_siblings(21, "server"));
        (0..20).for_each(|_| tasks.next_drain());
        assert_eq!(tasks.get(20), None);
    }
}
