//! The sysctls that a cause or a remedy names, read from /proc/sys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::redaction::Rule;
use super::text;
use crate::ask::{Probe, Scope};
use crate::value::{EphemeralPorts, NetnsId, Observed, ParseError};

/// Those of a network namespace, as sysctl(8) spells them; meaning in Documentation/networking/ip-sysctl.
///
/// `tcp_migrate_req` exists since 5.14.
pub const NAMES: [&str; 24] = [
    "net.core.somaxconn",
    PORT_RANGE,
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
];

const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";

/// Those of the whole host; meaning in Documentation/admin-guide/sysctl/fs. `tcp_max_orphans` and `tcp_mem` are among both: older
/// kernels show them in the first network namespace only.
pub const HOST_NAMES: [&str; 4] = ["fs.file-max", "fs.nr_open", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem"];

/// Whether a file is one of [`HOST_NAMES`].
pub fn is_of_host(file: &str) -> bool {
    HOST_NAMES.iter().any(|name| path(name) == file)
}

/// None of them is a key or a secret.
pub const REDACTION: Rule =
    Rule::harmless("sysctl", |what| NAMES.iter().chain(&HOST_NAMES).any(|name| what.is_file(&path(name))));

/// The local ports of outgoing connections from [`collect`]'s values, or the kernel's own where they were not read.
pub fn ephemeral_ports(sysctls: &BTreeMap<&'static str, Observed<String>>) -> EphemeralPorts {
    let text = sysctls.get(PORT_RANGE).and_then(Observed::value);
    text.and_then(|text| EphemeralPorts::parse(text)).unwrap_or_default()
}

/// The file of a sysctl. None of [`NAMES`] has a dot inside a segment, so every dot is a slash.
pub fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Every sysctl of [`NAMES`] with its text or why it is missing, and the time of all.
pub fn collect(probe: &mut dyn Probe, netns: NetnsId) -> (BTreeMap<&'static str, Observed<String>>, Duration) {
    collect_all(probe, Scope::Netns(netns), &NAMES)
}

/// `net.ipv4.ip_local_port_range` alone.
pub fn collect_port_range(probe: &mut dyn Probe, netns: NetnsId) -> BTreeMap<&'static str, Observed<String>> {
    collect_all(probe, Scope::Netns(netns), &[PORT_RANGE]).0
}

/// Every sysctl of [`HOST_NAMES`].
pub fn collect_host(probe: &mut dyn Probe) -> (BTreeMap<&'static str, Observed<String>>, Duration) {
    collect_all(probe, Scope::Host, &HOST_NAMES)
}

fn collect_all(
    probe: &mut dyn Probe,
    scope: Scope,
    names: &[&'static str],
) -> (BTreeMap<&'static str, Observed<String>>, Duration) {
    let mut took = Duration::ZERO;
    let values = names.iter().map(|name| {
        let path = path(name);
        let (value, one) = text::collect_file(probe, scope, &path, |bytes| parse_named(&path, bytes));
        took += one;
        (*name, value)
    });
    let values = values.collect();
    (values, took)
}

/// The text of a sysctl file, trimmed. Several numbers keep the tabs between them (`32768\t60999`); an empty list
/// (`ip_local_reserved_ports`) is the empty text.
///
/// # Errors
/// Text that is cut or not UTF-8.
pub fn parse(bytes: &[u8]) -> Result<String, ParseError> {
    parse_named("/proc/sys", bytes)
}

fn parse_named(path: &str, bytes: &[u8]) -> Result<String, ParseError> {
    text::single_line(path, bytes).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_become_the_path() {
        assert_eq!(path("net.ipv4.tcp_rfc1337"), "/proc/sys/net/ipv4/tcp_rfc1337");
        assert_eq!(path("fs.file-max"), "/proc/sys/fs/file-max");
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(NAMES.is_sorted_by(|left, right| left < right) && HOST_NAMES.is_sorted());
    }

    #[test]
    fn text_is_trimmed_and_lists_kept() {
        assert_eq!(parse(b"32768\t60999\n").unwrap(), "32768\t60999");
        assert_eq!(parse(b"\n").unwrap(), "");
        text::tests::assert_cuts_are_errors(b"32768\t60999\n", parse, |_| false);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
