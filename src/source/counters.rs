//! Kernel counters by name.

use std::collections::BTreeMap;

/// Counters of one source under stable names: `TcpExt.ListenOverflows` (/proc/net/netstat), `Tcp.OutRsts`
/// (/proc/net/snmp), `Ip6.Ip6InReceives` (/proc/net/snmp6), `TCP.inuse` (/proc/net/sockstat), `oom_kill` (/proc/vmstat).
/// A name that this kernel does not have is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl Into<String>, value: u64) {
        self.0.insert(name.into(), value);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}
