//! /proc/vmstat: only how often the out-of-memory killer struck (mm/vmstat.c; `oom_kill` since 4.13).

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::text;
use crate::value::ParseError;

const PATH: &str = "/proc/vmstat";
pub static FILE: CounterFile = CounterFile {
    name: "vmstat",
    path: PATH,
    per: Per::Host,
    parse,
    holds: |metric| !metric.contains('.'),
    redaction: Rule::harmless("vmstat", |what| what.is_file(PATH)),
};

/// The counters whose name starts with `oom_kill`, under the kernel's name; none on kernels before 4.13. They count for
/// the whole host, not for a container.
///
/// # Errors
/// A line that is not a name and a number, or that is cut.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    text::name_values(PATH, bytes, |name| name.starts_with("oom_kill").then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/vmstat-6.18.txt");

    #[test]
    fn only_the_oom_counters_are_kept() {
        let counters = parse(KERNEL_6_18).unwrap();
        assert_eq!(counters.iter().collect::<Vec<_>>(), [("oom_kill", 0)]);
        assert_eq!(parse(b"nr_free_pages 5\n").unwrap().get("oom_kill"), None, "a kernel before 4.13");
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
    }
}
