//! The form of /proc/net/netstat and /proc/net/snmp: a line of names, then a line of values, both with the same prefix
//! (net/ipv4/proc.c netstat_seq_show, snmp_seq_show).

use super::counters::Counters;
use super::text::lines;
use crate::value::ParseError;

/// Counters named `Prefix.Name`. Negative values are left out: `Tcp.MaxConn` is -1 for "no limit" (RFC 4022) and no
/// other is signed.
///
/// A text that was cut exactly between two tables is not told from a kernel without the later tables; the names of those
/// are absent from the result, which no reader takes for zero.
///
/// # Errors
/// Anything else that is cut or does not pair up, and text without the table `required`, which every kernel has.
pub(super) fn parse(source: &str, required: &str, bytes: &[u8]) -> Result<Counters, ParseError> {
    let mut counters = Counters::default();
    let mut found = false;
    let mut header: Option<(usize, &str, &str)> = None;
    for (line, text) in lines(source, bytes)? {
        let fail = |problem: String| ParseError::new(source, Some(line), problem);
        let (prefix, rest) = text.split_once(':').ok_or_else(|| fail("no `prefix:` at the start".to_owned()))?;
        let Some((_, header_prefix, names)) = header.take() else {
            header = Some((line, prefix, rest));
            continue;
        };
        if prefix != header_prefix {
            return Err(fail(format!("values of {prefix:?} follow the names of {header_prefix:?}")));
        }
        let (named, valued) = (names.split_whitespace().count(), rest.split_whitespace().count());
        if named != valued {
            return Err(fail(format!("{prefix} has {valued} values for {named} names")));
        }
        found |= prefix == required;
        for (name, value) in names.split_whitespace().zip(rest.split_whitespace()) {
            let digits = value.strip_prefix('-').unwrap_or(value);
            let name = format!("{prefix}.{name}");
            let number = super::text::number(source, line, &name, digits)?;
            if digits.len() == value.len() {
                counters.set(name, number);
            }
        }
    }
    match header {
        Some((line, prefix, _)) => {
            Err(ParseError::new(source, Some(line), format!("{prefix} has names but no values")))
        }
        None if !found => Err(ParseError::new(source, None, format!("has no {required} table"))),
        None => Ok(counters),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_few_values_are_an_error_that_names_the_line() {
        let error = parse("/proc/net/snmp", "Tcp", b"Tcp: A B\nTcp: 1\n").unwrap_err();
        assert_eq!(error.to_string(), "/proc/net/snmp, line 2: Tcp has 1 values for 2 names");
        assert!(parse("/proc/net/snmp", "Tcp", b"Tcp: A\nTcp: 1 2\n").is_err());
        assert!(parse("/proc/net/snmp", "Tcp", b"Tcp: A\nUdp: 1\n").is_err());
        assert!(parse("/proc/net/snmp", "Tcp", b"Tcp: A\n").is_err());
        assert!(parse("/proc/net/snmp", "Tcp", b"Tcp: A\nTcp: x\n").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse("x", "Tcp", &bytes);
        }

        #[test]
        fn arbitrary_tables_never_panic(text in "([A-Z]{1,2}:( [a-z0-9-]{1,3}){0,4}\n){0,6}") {
            let _ = parse("x", "Tcp", text.as_bytes());
        }

        /// Columns in any order, with unknown ones between them, give the same counters.
        #[test]
        fn order_and_unknown_columns_do_not_matter(
            columns in Just(vec![("OutRsts", 60u64), ("EstabResets", 58), ("Unknown1", 7), ("Unknown2", 8)]).prop_shuffle(),
        ) {
            let names: String = columns.iter().map(|(name, _)| format!(" {name}")).collect();
            let values: String = columns.iter().map(|(_, value)| format!(" {value}")).collect();
            let counters = parse("x", "Tcp", format!("Tcp:{names}\nTcp:{values}\n").as_bytes()).unwrap();
            prop_assert_eq!(counters.get("Tcp.OutRsts"), Some(60));
            prop_assert_eq!(counters.get("Tcp.EstabResets"), Some(58));
            prop_assert_eq!(counters.get("Tcp.Absent"), None);
        }
    }
}
