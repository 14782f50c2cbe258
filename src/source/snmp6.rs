//! /proc/net/snmp6: the IPv6 counters of one network namespace, `name value` lines (net/ipv6/proc.c).

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::text;
use crate::value::ParseError;

const PATH: &str = "/proc/net/snmp6";
pub static FILE: CounterFile = CounterFile {
    name: "snmp6",
    path: PATH,
    per: Per::Netns,
    parse,
    holds: |metric| metric.starts_with("Ip6."),
    redaction: Rule::harmless("snmp6", |what| what.is_file(PATH)),
};

/// Counters named `Ip6.` and the kernel's name, whatever protocol that names: `Ip6.Ip6InReceives`, `Ip6.Icmp6InMsgs`.
/// TCP over IPv6 is counted in /proc/net/snmp; nothing here is about TCP alone.
///
/// # Errors
/// A line that is not a name and a number, or that is cut.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    text::name_values(PATH, bytes, |name| Some(format!("Ip6.{name}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/snmp6-6.18.txt");

    #[test]
    fn a_present_kernel() {
        let counters = parse(KERNEL_6_18).unwrap();
        assert_eq!(counters.get("Ip6.Ip6InReceives"), Some(1));
        assert_eq!(counters.get("Ip6.Absent"), None);
    }

    #[test]
    fn cut_text_is_an_error() {
        text::tests::assert_cuts_are_errors(KERNEL_6_18, parse, |prefix| prefix.ends_with(b"\n"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn order_and_unknown_lines_do_not_matter(lines in Just(vec!["Ip6InReceives \t7", "New1 1", "New2 2"]).prop_shuffle()) {
            let counters = parse((lines.join("\n") + "\n").as_bytes()).unwrap();
            prop_assert_eq!(counters.get("Ip6.Ip6InReceives"), Some(7));
        }
    }
}
