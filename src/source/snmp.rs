//! /proc/net/snmp: the Ip, Icmp, Tcp and Udp counters of one network namespace (RFC 4022, net/ipv4/proc.c).

use std::time::Duration;

use super::counters::Counters;
use super::redaction::Rule;
use super::{text, two_line_table};
use crate::ask::{Probe, Scope};
use crate::value::{NetnsId, Observed, ParseError};

const PATH: &str = "/proc/net/snmp";
pub const REDACTION: Rule = Rule::harmless("snmp", |what| what.is_file(PATH));

pub fn collect(probe: &mut dyn Probe, netns: NetnsId) -> (Observed<Counters>, Duration) {
    text::collect_file(probe, Scope::Netns(netns), PATH, parse)
}

/// Counters named `Tcp.OutRsts`, `Ip.OutRequests`, ... `Tcp.CurrEstab` is the only one of Tcp that can fall.
///
/// # Errors
/// Text that is cut, or has no Tcp table.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    two_line_table::parse(PATH, "Tcp", bytes)
}

#[cfg(test)]
mod tests {
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
