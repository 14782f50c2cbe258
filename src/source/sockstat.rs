//! /proc/net/sockstat and sockstat6: how many sockets there are and how much memory they hold (net/ipv4/proc.c
//! sockstat_seq_show). `TCP.inuse` and `TCP.tw` belong to the network namespace; `TCP.orphan`, `TCP.alloc` and `TCP.mem`
//! (pages) are of the whole host, which a reader inside a container must not take for its own.

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::text;
use crate::value::ParseError;

const PATH: &str = "/proc/net/sockstat";
const PATH_6: &str = "/proc/net/sockstat6";

/// `TCP.inuse`, `TCP.orphan`, `TCP.tw`, `TCP.alloc`, `TCP.mem`, ...
pub static FILE: CounterFile = CounterFile {
    name: "sockstat",
    path: PATH,
    per: Per::Netns,
    parse,
    holds: |_| false,
    redaction: Rule::harmless("sockstat", |what| what.is_file(PATH)),
};

/// `TCP6.inuse`, ...
pub static FILE_6: CounterFile = CounterFile {
    name: "sockstat6",
    path: PATH_6,
    per: Per::Netns,
    parse: |bytes| parse_named(PATH_6, bytes),
    holds: |_| false,
    redaction: Rule::harmless("sockstat6", |what| what.is_file(PATH_6)),
};

/// Parses /proc/net/sockstat.
///
/// # Errors
/// A line that is not `protocol: name number name number ...`, or that is cut.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    parse_named(PATH, bytes)
}

fn parse_named(source: &str, bytes: &[u8]) -> Result<Counters, ParseError> {
    let mut counters = Counters::default();
    for (line, text) in text::lines(source, bytes)? {
        let (protocol, rest) =
            text.split_once(':').ok_or_else(|| ParseError::new(source, Some(line), "no `protocol:` at the start"))?;
        let mut fields = rest.split_whitespace();
        while let Some(name) = fields.next() {
            let key = format!("{protocol}.{name}");
            let value =
                fields.next().ok_or_else(|| ParseError::new(source, Some(line), format!("{key} has no value")))?;
            let value = text::number(source, line, &key, value)?;
            counters.set(key, value);
        }
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/sockstat-6.18.txt");
    const KERNEL_6_18_V6: &[u8] = include_bytes!("samples/sockstat6-6.18.txt");

    #[test]
    fn a_present_kernel() {
        let counters = parse(KERNEL_6_18).unwrap();
        assert_eq!(counters.get("TCP.alloc"), Some(1));
        assert_eq!(counters.get("TCP.orphan"), Some(0));
        assert_eq!(counters.get("sockets.used"), Some(13));
        assert_eq!(parse(KERNEL_6_18_V6).unwrap().get("TCP6.inuse"), Some(0));
    }

    #[test]
    fn cut_text_is_an_error() {
        text::tests::assert_cuts_are_errors(KERNEL_6_18, parse, |prefix| prefix.ends_with(b"\n"));
        assert_eq!(
            parse(b"TCP: inuse\n").unwrap_err().to_string(),
            "/proc/net/sockstat, line 1: TCP.inuse has no value"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn order_and_unknown_fields_do_not_matter(fields in Just(vec!["inuse 5", "tw 9", "new 1"]).prop_shuffle()) {
            let counters = parse(format!("NEW: a 1\nTCP: {}\n", fields.join(" ")).as_bytes()).unwrap();
            prop_assert_eq!((counters.get("TCP.inuse"), counters.get("TCP.tw")), (Some(5), Some(9)));
        }
    }
}
