//! Which host, kernel and privileges the observation was made with.

use std::time::Duration;

use super::pseudonyms::Pseudonyms;
use super::redaction::Rule;
use super::text;
use crate::ask::{self, Ask, Probe, What};
use crate::value::{Failure, Observed, ParseError, outside};

/// Identity of the observed host; live facts, none of them needed for a verdict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    pub hostname: Option<String>,
    /// Kernel release, e.g. `6.18.44`.
    pub kernel: Option<String>,
    /// Seconds since boot.
    pub uptime_s: Option<f64>,
    /// Effective user id of the observer.
    pub uid: Option<u32>,
    /// CapEff bits, capabilities(7).
    pub capabilities: Option<u64>,
    /// The observer is in another user namespace than the first, and its root an ordinary user outside. `false` where that was not
    /// recorded.
    pub in_user_namespace: bool,
}

impl HostFacts {
    /// `root`, `root of a user namespace`, `uid 33`.
    pub fn as_whom(&self) -> Option<String> {
        Some(match (self.uid?, self.in_user_namespace) {
            (0, false) => "root".to_owned(),
            (0, true) => "root of a user namespace".to_owned(),
            (uid, _) => format!("uid {uid}"),
        })
    }

    /// The observer may all that a privilege can allow.
    pub fn is_root(&self) -> bool {
        self.uid == Some(0) && !self.in_user_namespace
    }
}

/// A capability that is missing, named so that it helps: root of a user namespace has it there only, and gains nothing by it; and
/// root without it, as in a container, is told by being root nothing.
pub fn needed(capability: &str, in_user_namespace: bool, is_root: bool) -> String {
    match (in_user_namespace, is_root) {
        (true, _) => {
            format!("{capability} on the host: this is a user namespace, and its root is an ordinary user there")
        }
        (false, true) => capability.to_owned(),
        (false, false) => format!("root or {capability}"),
    }
}

const UPTIME: &str = "/proc/uptime";
const STATUS: &str = "/proc/self/status";
const UID_MAP: &str = "/proc/self/uid_map";
pub const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const RELEASE: &str = "/proc/sys/kernel/osrelease";

pub const REDACTION: Rule =
    Rule::harmless("kernel", |what| [UPTIME, RELEASE, UID_MAP].iter().any(|file| what.is_file(file)));
pub const HOSTNAME_REDACTION: Rule = Rule::text(
    "host name",
    |what| what.is_file(HOSTNAME),
    |names, text| Some(format!("host-{}\n", names.hosts.number(text.trim_ascii_end())).into_bytes()),
);
pub const STATUS_REDACTION: Rule =
    Rule::text("own privileges", |what| what.is_file(STATUS), |names, text| redact_status(names, &text));

/// What could be read; `Partial` with the first thing that could not, `Unavailable` if nothing could.
pub fn collect(probe: &mut dyn Probe) -> (Observed<HostFacts>, Duration) {
    let mut facts = HostFacts::default();
    let mut failures = Failures::default();
    facts.hostname = failures.file(probe, HOSTNAME, parse_name);
    facts.kernel = failures.file(probe, RELEASE, parse_name);
    facts.uptime_s = failures.file(probe, UPTIME, parse_uptime);
    if let Some((uid, capabilities)) = failures.file(probe, STATUS, parse_status) {
        (facts.uid, facts.capabilities) = (Some(uid), Some(capabilities));
    }
    // Not there before Linux 3.5 and in older recordings: nothing is missing then.
    let (uid_map, took) = ask::read(probe, &Ask::host(What::File(UID_MAP.to_owned())));
    failures.took += took;
    facts.in_user_namespace = uid_map.is_ok_and(|map| !is_first(&map));
    let observed = match failures.first {
        None => Observed::Full(facts),
        Some(failure) if facts == HostFacts::default() => Observed::Unavailable(failure),
        Some(failure) => Observed::Partial(facts, failure),
    };
    (observed, failures.took)
}

#[derive(Default)]
struct Failures {
    first: Option<Failure>,
    took: Duration,
}

impl Failures {
    fn file<T>(
        &mut self,
        probe: &mut dyn Probe,
        path: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Option<T> {
        let (bytes, took) = ask::read(probe, &Ask::host(What::File(path.to_owned())));
        self.took += took;
        self.keep(bytes.and_then(|bytes| Ok(parse(&bytes)?)))
    }

    fn keep<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.first.get_or_insert(failure).clone()).ok()
    }
}

/// A host name or kernel release: one line.
///
/// # Errors
/// Text that is cut or not UTF-8.
pub fn parse_name(bytes: &[u8]) -> Result<String, ParseError> {
    text::single_line("/proc/sys/kernel", bytes).map(|name| outside::bounded(name, outside::UTS))
}

/// Seconds since boot, the first number of /proc/uptime.
///
/// # Errors
/// No number there, or text that is cut.
pub fn parse_uptime(bytes: &[u8]) -> Result<f64, ParseError> {
    let line = text::single_line(UPTIME, bytes)?;
    let seconds = line.split_whitespace().next().and_then(|seconds| seconds.parse::<f64>().ok());
    seconds
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| ParseError::new(UPTIME, Some(1), "does not begin with the seconds since boot"))
}

/// A map of the first user namespace, which maps every number to itself (user_namespaces(7)).
pub fn is_first(uid_map: &[u8]) -> bool {
    let words = uid_map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.eq([&b"0"[..], b"0", b"4294967295"])
}

/// Effective user id and CapEff bits from /proc/self/status, proc_pid_status(5).
///
/// # Errors
/// One of the two is missing or not a number, or the text is cut.
pub fn parse_status(bytes: &[u8]) -> Result<(u32, u64), ParseError> {
    let (mut uid, mut capabilities) = (None, None);
    for (_, line) in text::lines(STATUS, bytes)? {
        match line.split_once(':') {
            // Real, effective, saved, filesystem.
            Some(("Uid", values)) => uid = values.split_whitespace().nth(1).and_then(|uid| uid.parse().ok()),
            Some(("CapEff", bits)) => capabilities = u64::from_str_radix(bits.trim(), 16).ok(),
            _ => {}
        }
    }
    let missing = |field: &str| ParseError::new(STATUS, None, format!("has no {field}"));
    Ok((uid.ok_or_else(|| missing("effective Uid"))?, capabilities.ok_or_else(|| missing("CapEff"))?))
}

fn redact_status(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let rest = text.strip_prefix(b"Name:\t")?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let name = names.process(&text::unescape(rest.get(..end)?));
    Some([b"Name:\t", &*name, rest.get(end..)?].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS_6_18: &[u8] = b"Name:\tcat\nUmask:\t0022\nUid:\t1000\t33\t0\t0\nCapPrm:\t000001ffffffffff\n\
        CapEff:\t000001fffeffffff\nSeccomp:\t0\n";

    #[test]
    fn values_of_a_present_kernel() {
        assert_eq!(parse_status(STATUS_6_18).unwrap(), (33, 0x1fffeffffff));
        assert_eq!(parse_uptime(b"1234.56 2000.01\n").unwrap(), 1234.56);
        assert_eq!(parse_name(b"6.18.44\n").unwrap(), "6.18.44");
    }

    #[test]
    fn the_first_user_namespace_maps_all_numbers_to_themselves() {
        assert!(is_first(b"         0          0 4294967295\n"));
        assert!(!is_first(b"         0       1000          1\n"));
        assert!(!is_first(b"         0          0      65536\n"));
    }

    #[test]
    fn root_of_a_user_namespace_is_called_so() {
        let facts = |uid, in_user_namespace| HostFacts { uid, in_user_namespace, ..HostFacts::default() };
        let called = |uid, inside| (facts(uid, inside).as_whom(), facts(uid, inside).is_root());
        assert_eq!(called(Some(0), false), (Some("root".to_owned()), true));
        assert_eq!(called(Some(0), true), (Some("root of a user namespace".to_owned()), false));
        assert_eq!(called(Some(33), true), (Some("uid 33".to_owned()), false));
        assert_eq!(called(None, false), (None, false));
    }

    #[test]
    fn cut_text_is_an_error() {
        let wanted_lines =
            |prefix: &[u8]| prefix.ends_with(b"\n") && prefix.windows(7).any(|window| window == b"CapEff:");
        text::tests::assert_cuts_are_errors(STATUS_6_18, parse_status, wanted_lines);
        text::tests::assert_cuts_are_errors(b"1234.56 2000.01\n", parse_uptime, |_| false);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = (parse_status(&bytes), parse_uptime(&bytes), parse_name(&bytes));
        }
    }
}
