//! /proc/net/netstat: the TcpExt, IpExt and MPTcpExt counters of one network namespace (net/ipv4/proc.c, snmp_counter(7)
//! in Documentation/networking). They count since the namespace was made and only grow, 64 bits wide.

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::two_line_table;
use crate::value::ParseError;

const PATH: &str = "/proc/net/netstat";
pub static FILE: CounterFile = CounterFile {
    name: "netstat",
    path: PATH,
    per: Per::Netns,
    parse,
    holds: |metric| ["TcpExt.", "IpExt.", "MPTcpExt."].iter().any(|table| metric.starts_with(table)),
    redaction: Rule::harmless("netstat", |what| what.is_file(PATH)),
};

/// Counters named `TcpExt.ListenOverflows`, `MPTcpExt.MPRstTx`, ...
///
/// # Errors
/// Text that is cut, or has no TcpExt table, which every kernel since 2.4 has.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    two_line_table::parse(PATH, "TcpExt", bytes)
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/netstat-6.18.txt");
    const KERNEL_4_4: &[u8] = include_bytes!("samples/netstat-4.4.txt");

    #[test]
    fn a_present_kernel() {
        let counters = parse(KERNEL_6_18).unwrap();
        assert_eq!(counters.get("TcpExt.TCPAbortOnClose"), Some(59));
        assert_eq!(counters.get("TcpExt.ListenOverflows"), Some(0));
        assert_eq!(counters.get("MPTcpExt.MPRstTx"), Some(0));
    }

    #[test]
    fn an_old_kernel_lacks_names_and_keeps_the_others() {
        let counters = parse(KERNEL_4_4).unwrap();
        assert_eq!(counters.get("TcpExt.ListenOverflows"), Some(17));
        assert_eq!(counters.get("TcpExt.ListenDrops"), Some(19));
        assert_eq!(counters.get("TcpExt.TCPMigrateReqSuccess"), None);
        assert_eq!(counters.get("IpExt.OutOctets"), Some(u64::MAX));
    }

    #[test]
    fn cut_text_is_an_error() {
        for sample in [KERNEL_6_18, KERNEL_4_4] {
            text::tests::assert_cuts_are_errors(sample, parse, |prefix| {
                prefix.ends_with(b"\n")
                    && prefix.iter().filter(|byte| **byte == b'\n').count() % 2 == 0
                    && !prefix.is_empty()
            });
        }
    }
}
