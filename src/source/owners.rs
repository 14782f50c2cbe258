//! Which processes hold which sockets, and what state those processes are in.

use std::collections::BTreeMap;

/// Holders of the sockets that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    /// Socket inode to the processes that hold it, ascending.
    pub by_inode: BTreeMap<u32, Vec<u32>>,
    pub processes: BTreeMap<u32, Process>,
    /// Processes whose descriptors could not be read (another user's, without CAP_SYS_PTRACE).
    pub denied: u64,
}

/// One process, from /proc/PID/{stat,status,limits,cgroup,cmdline}; see proc_pid_stat(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: u32,
    /// comm: at most 15 bytes, as the process set it; escape it before printing.
    pub name: String,
    /// Arguments, joined by spaces, capped at 4 KiB; empty for a kernel thread.
    pub command_line: String,
    /// Scheduler state letter: R, S, D, T (stopped), t (traced), Z.
    pub state: char,
    /// Clock ticks since boot at which it started: pid and start identify a process for ever.
    pub start_ticks: u64,
    /// User and system time of all threads, clock ticks.
    pub cpu_ticks: u64,
    pub threads: u64,
    /// systemd unit from the cgroup path ("nginx.service").
    pub unit: Option<String>,
    /// Container id (12 hex digits) from the cgroup path.
    pub container: Option<String>,
    pub open_files: Option<u64>,
    /// Soft RLIMIT_NOFILE; `None` when unlimited or not readable.
    pub open_files_limit: Option<u64>,
}

/// Clock ticks per second in /proc/PID/stat: USER_HZ, 100 on every Linux that Rust supports.
pub const TICKS_PER_SECOND: u64 = 100;
