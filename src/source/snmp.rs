//! /proc/net/snmp: the Ip, Icmp, Tcp and Udp counters of one network namespace (RFC 4022, net/ipv4/proc.c).

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::two_line_table;
use crate::value::ParseError;

pub const PATH: &str = "/proc/net/snmp";
pub static FILE: CounterFile = CounterFile {
    name: "snmp",
    path: PATH,
    per: Per::Netns,
    parse,
    holds: |metric| {
        ["Ip.", "Icmp.", "IcmpMsg.", "Tcp.", "Udp.", "UdpLite."].iter().any(|table| metric.starts_with(table))
    },
    redaction: Rule::harmless("snmp", |what| what.is_file(PATH)),
};

/// Counters named `Tcp.OutRsts`, `Ip.OutRequests`, ... `Tcp.CurrEstab` is the only one of Tcp that can fall.
///
/// # Errors
/// Text that is cut, or has no Tcp table.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    two_line_table::parse(PATH, "Tcp", bytes)
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/snmp-6.18.txt");

    #[test]
    fn a_present_kernel() {
        let counters = parse(KERNEL_6_18).unwrap();
        assert_eq!(counters.get("Tcp.OutRsts"), Some(61));
        assert_eq!(counters.get("Tcp.EstabResets"), Some(59));
        assert_eq!(counters.get("Tcp.MaxConn"), None, "-1 means no limit, not a count");
    }

    #[test]
    fn cut_text_is_an_error() {
        text::tests::assert_cuts_are_errors(KERNEL_6_18, parse, |prefix| {
            let tables = prefix.iter().filter(|byte| **byte == b'\n').count();
            prefix.ends_with(b"\n") && tables % 2 == 0 && prefix.windows(5).any(|window| window == b"\nTcp:")
        });
    }
}
