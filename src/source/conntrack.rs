//! Connection tracking: how full the table is and what it rejected.

use std::time::Duration;

use super::counters::Counters;
use super::redaction::Rule;
use super::text;
use crate::ask::{Probe, Scope};
use crate::value::{NetnsId, Observed, ParseError};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conntrack {
    /// nf_conntrack_count: entries now, of this network namespace.
    pub count: u64,
    /// nf_conntrack_max.
    pub max: u64,
    /// /proc/net/stat/nf_conntrack summed over the CPUs, by column name: `invalid`, `drop`, `early_drop`, ...; absent
    /// when the file is not readable.
    pub stat: Option<Counters>,
}

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const STAT: &str = "/proc/net/stat/nf_conntrack";
pub const REDACTION: Rule =
    Rule::harmless("conntrack", |what| [COUNT, MAX, STAT].into_iter().any(|path| what.is_file(path)));

/// Unavailable without the nf_conntrack module, `Partial` when only the statistics are missing.
pub fn collect(probe: &mut dyn Probe, netns: NetnsId) -> (Observed<Conntrack>, Duration) {
    let scope = Scope::Netns(netns);
    let (count, count_took) = text::collect_file(probe, scope, COUNT, |bytes| parse_number(COUNT, bytes));
    let (max, max_took) = text::collect_file(probe, scope, MAX, |bytes| parse_number(MAX, bytes));
    let (stat, stat_took) = text::collect_file(probe, scope, STAT, parse);
    let observed = match (count.get(), max.get()) {
        (Ok(count), Ok(max)) => {
            let conntrack = Conntrack { count: *count, max: *max, stat: stat.value().cloned() };
            match stat.failure() {
                Some(failure) => Observed::Partial(conntrack, failure.clone()),
                None => Observed::Full(conntrack),
            }
        }
        (Err(failure), _) | (_, Err(failure)) => Observed::Unavailable(failure.clone()),
    };
    (observed, count_took + max_took + stat_took)
}

fn parse_number(path: &str, bytes: &[u8]) -> Result<u64, ParseError> {
    text::number(path, 1, "the value", text::single_line(path, bytes)?)
}

/// /proc/net/stat/nf_conntrack (net/netfilter/nf_conntrack_standalone.c ct_cpu_seq_show): a header, then one row of
/// hexadecimal numbers per CPU. The sums over the CPUs; `entries` is the same total in every row and is taken once. Each
/// count is 32 bits wide and wraps.
///
/// Text cut after a whole row is not told from a host with fewer CPUs.
///
/// # Errors
/// Text cut elsewhere, a row with more or fewer numbers than the header has names.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    let mut lines = text::lines(STAT, bytes)?;
    let names: Vec<&str> = lines.next().map(|(_, header)| header.split_whitespace().collect()).unwrap_or_default();
    let mut counters = Counters::default();
    let mut rows = 0;
    for (line, row) in lines {
        let columns = row.split_whitespace().count();
        if columns != names.len() {
            let problem = format!("{columns} values for {} names", names.len());
            return Err(ParseError::new(STAT, Some(line), problem));
        }
        for (name, value) in names.iter().zip(row.split_whitespace()) {
            let value = u64::from_str_radix(value, 16).map_err(|_| {
                ParseError::new(STAT, Some(line), format!("{name} is {value:?}, not a hexadecimal number"))
            })?;
            let so_far = if *name == "entries" { 0 } else { counters.get(name).unwrap_or(0) };
            counters.set(*name, so_far.saturating_add(value));
        }
        rows += 1;
    }
    match rows {
        0 => Err(ParseError::new(STAT, None, "has no row")),
        _ => Ok(counters),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KERNEL_6_18: &[u8] = include_bytes!("samples/nf_conntrack-6.18.txt");

    #[test]
    fn rows_are_hexadecimal_and_summed_but_entries_are_not() {
        let text = b"entries  found invalid drop\n00000010  00000000 0000000a 00000001\n00000010  00000000 00000010 00000002\n";
        let counters = parse(text).unwrap();
        assert_eq!(
            (counters.get("invalid"), counters.get("drop"), counters.get("entries")),
            (Some(26), Some(3), Some(16))
        );
        assert_eq!(counters.get("early_drop"), None);
    }

    #[test]
    fn a_present_kernel_and_its_cuts() {
        assert_eq!(parse(KERNEL_6_18).unwrap().get("early_drop"), Some(0));
        text::tests::assert_cuts_are_errors(KERNEL_6_18, parse, |prefix| {
            prefix.ends_with(b"\n") && prefix.iter().filter(|byte| **byte == b'\n').count() > 1
        });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn order_and_unknown_columns_do_not_matter(
            columns in Just(vec![("invalid", "0a"), ("drop", "0b"), ("new_name", "ffffffff")]).prop_shuffle(),
        ) {
            let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
            let counters = parse(format!("{}\n{}\n", names.join(" "), values.join(" ")).as_bytes()).unwrap();
            prop_assert_eq!((counters.get("invalid"), counters.get("drop")), (Some(10), Some(11)));
        }
    }
}
