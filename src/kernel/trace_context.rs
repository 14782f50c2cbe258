//! What the reset tracepoints do not carry: clocks, processes, names of kernel functions.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::at_once;
use crate::source::reset_events::is_telling;
use crate::value::NetnsId;

pub(super) fn netns(path: &Path) -> Option<NetnsId> {
    NetnsId::from_link(std::fs::read_link(path).ok()?.to_str()?)
}

pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `after_name`: what follows the name in /proc/PID/stat, proc_pid_stat(5): state, ppid, pgrp, session, tty_nr, tpgid, flags.
pub(super) fn is_kernel_thread(after_name: &str) -> bool {
    /// include/linux/sched.h
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = after_name.split_ascii_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// The tasks block.
pub fn tasks() -> String {
    at_once::share(processes().collect(), |pid| task(pid).unwrap_or_default()).concat()
}

fn task(pid: u32) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain any byte, parentheses too: proc_pid_stat(5).
    let stat = String::from_utf8_lossy(&stat);
    let (name, rest) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'))?;
    let kind = if is_kernel_thread(rest) { "kernel" } else { "user" };
    let netns = netns(Path::new(&format!("/proc/{pid}/ns/net"))).map_or("-".to_owned(), |netns| netns.to_string());
    let name = name.replace('\\', "\\\\").replace('\n', "\\n");
    Some(format!("{pid} {netns} {kind} {name}\n"))
}

/// The symbols block; the reason when kallsyms hides its addresses.
pub fn symbols() -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("/proc/kallsyms: {error}");
    let mut file = BufReader::with_capacity(64 << 10, File::open("/proc/kallsyms").map_err(wrong)?);
    let mut starts = Vec::new();
    let mut wanted: Vec<(u64, String)> = Vec::new();
    let mut line = String::new();
    // Line by line: it is 15 MB and more.
    loop {
        line.clear();
        if file.read_line(&mut line).map_err(wrong)? == 0 {
            break;
        }
        let mut words = line.split_whitespace();
        let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        starts.push(address);
        if is_telling(name) {
            wanted.push((address, name.to_owned()));
        }
    }
    if wanted.iter().all(|(address, _)| *address == 0) {
        return Err("addresses are hidden (kernel.kptr_restrict, or no CAP_SYSLOG)".to_owned());
    }
    starts.sort_unstable();
    let mut out = String::new();
    for (start, name) in wanted {
        if let Some(end) = starts.get(starts.partition_point(|address| *address <= start)) {
            let _ = writeln!(out, "{start:x} {end:x} {name}");
        }
    }
    Ok(out)
}
