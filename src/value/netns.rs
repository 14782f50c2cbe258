//! Network namespaces.

use std::fmt;

/// A network namespace, by the inode number that `/proc/PID/ns/net` shows (namespaces(7)). 0, the inode of no namespace
/// (include/linux/proc_ns.h), stands for one whose number could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NetnsId(pub u64);

impl NetnsId {
    /// The one in `net:[4026531840]`, as readlink(2) gives it.
    pub fn from_link(link: &str) -> Option<Self> {
        link.trim().strip_prefix("net:[")?.strip_suffix(']')?.parse().ok().map(Self)
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
