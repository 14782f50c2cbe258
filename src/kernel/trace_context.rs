//! What the reset tracepoints do not carry: clocks, namespaces, addresses, processes, names of kernel functions.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::source::reset_events::is_telling;

/// PROC_PID_INIT_INO, include/linux/proc_ns.h, since Linux 3.8.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The scope block: namespace of the calling thread, its addresses, and the other network namespaces of the host that
/// are held by a mount (`ip netns`, container runtimes). Those held by processes are in [`tasks`].
pub fn scope() -> String {
    let mut text = String::new();
    if let Some(inode) = netns(Path::new("/proc/thread-self/ns/net")) {
        let _ = writeln!(text, "netns {inode}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let bound = mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(3));
    for inode in bound.filter_map(inode).collect::<BTreeSet<_>>() {
        let _ = writeln!(text, "namespace {inode}");
    }
    // In a pid namespace of its own, a container, most processes of the host are hidden, and their network namespaces with
    // them. 0 stands for all of these: the inode of no namespace (include/linux/proc_ns.h).
    let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if pids.to_str() != Some(FIRST_PID_NAMESPACE) {
        let _ = writeln!(text, "namespace 0");
    }
    for address in super::addresses::local().unwrap_or_default() {
        let _ = writeln!(text, "address {address}");
    }
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    if let [low, high] = range.split_whitespace().collect::<Vec<_>>()[..] {
        let _ = writeln!(text, "ephemeral {low} {high}");
    }
    text
}

/// `net:[4026531840]`
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn netns(path: &Path) -> Option<u64> {
    inode(std::fs::read_link(path).ok()?.to_str()?)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The tasks block.
pub fn tasks() -> String {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let mut text = String::new();
    for pid in processes() {
        let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { continue };
        // The name stands in parentheses and may contain any byte, parentheses too: proc_pid_stat(5).
        let stat = String::from_utf8_lossy(&stat);
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let flags = rest.split_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
        let kind = if flags & PF_KTHREAD != 0 { "kernel" } else { "user" };
        let netns = netns(Path::new(&format!("/proc/{pid}/ns/net"))).map_or("-".to_owned(), |inode| inode.to_string());
        let name = name.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "{pid} {netns} {kind} {name}");
    }
    text
}

/// The symbols block; the reason when kallsyms hides its addresses.
pub fn symbols() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/kallsyms").map_err(|error| format!("/proc/kallsyms: {error}"))?;
    let mut starts = Vec::new();
    let mut wanted = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        starts.push(address);
        if is_telling(name) {
            wanted.push((address, name));
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
