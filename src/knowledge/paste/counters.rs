//! `netstat -s`, `nstat`, `/proc/net/netstat` and `snmp`, and the names under which Prometheus has them.

use std::collections::BTreeMap;

use super::Support;
use crate::knowledge::error_texts::{self, ErrorText};
use crate::value::words::thousands;

/// One counter of the kernel in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    pub first: u64,
    /// The value that stands last: another one if the text has two times.
    pub last: u64,
    pub times: u64,
}

impl Counter {
    /// What it grew by between the first and the last time; its value where there is only one.
    pub fn value(&self) -> u64 {
        if self.times > 1 { self.last.saturating_sub(self.first) } else { self.last }
    }
}

/// Counters that a text contains, by group and name.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lines that were understood.
    pub lines: u64,
    values: BTreeMap<(String, String), Counter>,
    /// Names of the two-line table whose values come next.
    header: Option<(String, Vec<String>)>,
    /// Section of `netstat -s`.
    section: bool,
    /// That of TcpExt was there: a counter that it does not print is zero.
    extended: bool,
}

const GROUPS: [&str; 13] = [
    "TcpExt", "IpExt", "MPTcpExt", "UdpLite", "IcmpMsg", "Icmp6", "Udp6", "UdpLite6", "Ip6", "Icmp", "Tcp", "Udp", "Ip",
];

/// Counters that grow on every healthy host: they say something only as a share.
const ORDINARY: [&str; 10] = [
    "TCPRcvQDrop",
    "OutRsts",
    "EstabResets",
    "AttemptFails",
    "RetransSegs",
    "TCPKeepAlive",
    "TCPChallengeACK",
    "PAWSEstab",
    "TCPSynRetrans",
    "TCPBacklogDrop",
];

/// Counters that `netstat -s` leaves out where they are zero, and that a judgement needs (net-tools statistics.c).
const PRINTED_UNLESS_ZERO: [&str; 12] = [
    "EmbryonicRsts",
    "ListenDrops",
    "ListenOverflows",
    "PAWSEstab",
    "SyncookiesFailed",
    "SyncookiesSent",
    "TCPAbortOnClose",
    "TCPAbortOnData",
    "TCPAbortOnLinger",
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPReqQFullDrop",
];

/// Share of the segments sent that were sent again, above which the path loses packets.
const LOSSY: f64 = 0.01;
/// Share of the connections, below which an ordinary counter says nothing.
const NOTABLE: f64 = 0.01;
/// Different counters that are kept.
const MOST: usize = 2_000;

impl Counters {
    /// Takes the line if it is one of counters.
    pub fn line(&mut self, line: &str) -> bool {
        let taken = self.table(line) || self.nstat(line) || self.prometheus(line) || self.statistics(line);
        self.lines += u64::from(taken);
        taken
    }

    fn add(&mut self, group: &str, name: &str, value: u64) {
        let key = (group.to_owned(), name.to_owned());
        if self.values.len() >= MOST && !self.values.contains_key(&key) {
            return;
        }
        let counter = self.values.entry(key).or_insert(Counter { first: value, last: value, times: 0 });
        counter.last = value;
        counter.times += 1;
    }

    /// `TcpExt: SyncookiesSent ...`, and below it `TcpExt: 0 ...`.
    fn table(&mut self, line: &str) -> bool {
        let Some((group, rest)) = line.split_once(": ") else { return false };
        if !GROUPS.contains(&group) {
            return false;
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        let numbers = words.iter().all(|word| word.parse::<i64>().is_ok());
        match self.header.take() {
            Some((named, names)) if named == group && numbers => {
                for (name, value) in names.iter().zip(&words) {
                    // A negative one (Tcp MaxConn -1) is no counter.
                    if let Ok(value) = value.parse() {
                        self.add(group, name, value);
                    }
                }
                true
            }
            // A group may have a single name: `IcmpMsg: InType3`.
            _ if !numbers
                && (words.len() > 1 || rest.starts_with(|c: char| c.is_ascii_uppercase()))
                && words.iter().all(|word| word.chars().all(|c| c.is_ascii_alphanumeric())) =>
            {
                self.header = Some((group.to_owned(), words.iter().map(|word| (*word).to_owned()).collect()));
                true
            }
            _ => false,
        }
    }

    /// `TcpExtListenOverflows           72                 0.0`.
    fn nstat(&mut self, line: &str) -> bool {
        if line.trim_end() == "#kernel" {
            return true;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(value), Some(rate), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return false;
        };
        let Some((group, name)) = grouped(name) else { return false };
        let (Ok(value), true) = (value.parse(), rate.parse::<f64>().is_ok()) else { return false };
        self.add(group, name, value);
        true
    }

    /// `node_netstat_TcpExt_ListenOverflows 72`.
    fn prometheus(&mut self, line: &str) -> bool {
        let Some(rest) = line.trim().strip_prefix("node_netstat_") else { return false };
        let Some((name, value)) = rest.split_once(' ') else { return false };
        let name = name.split('{').next().unwrap_or(name);
        let (Some((group, name)), Ok(value)) = (name.split_once('_'), value.trim().parse::<f64>()) else {
            return false;
        };
        self.add(group, name, value as u64);
        true
    }

    /// `    72 times the listen queue of a socket overflowed`, `    TCPBacklogDrop: 23`.
    fn statistics(&mut self, line: &str) -> bool {
        let trimmed = line.trim();
        if let Some(group) = line.trim_end().strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            self.section = GROUPS.contains(&group);
            self.extended |= group == "TcpExt";
            return self.section;
        }
        let number = |word: &str| word.parse::<u64>().ok();
        if let Some((name, value)) = trimmed.split_once(": ") {
            let known = error_texts::counter("TcpExt", name).is_some();
            if let (Some(value), true) = (number(value), known || self.section && line.starts_with(' ')) {
                self.add("TcpExt", name, value);
                return true;
            }
        }
        let inside = self.section && line.starts_with([' ', '\t']);
        let Some(value) = trimmed.split_whitespace().find_map(number) else { return inside };
        let alone = trimmed.starts_with(|c: char| c.is_ascii_digit()) || trimmed.starts_with("TCP ran low");
        if let Some(name) = plain(trimmed) {
            self.add("Tcp", name, value);
            return true;
        }
        let known = if alone { error_texts::counter_in_words(trimmed.as_bytes()) } else { None };
        if let Some((group, name)) = known.and_then(|text| text.counter.as_deref()?.split_once('.')) {
            self.add(group, name, value);
            return true;
        }
        // Other lines of the output: understood, of no interest here.
        inside
    }

    /// Counters other than zero that tell of refused, lost or reset connections, the largest first.
    pub fn telling(&self) -> Vec<(&'static ErrorText, Counter)> {
        let text = |(group, name): &(String, String)| error_texts::counter(group, name);
        let overflows = self.value("TcpExt", "ListenOverflows").unwrap_or(0);
        // Every overflow is a drop, too.
        let only_overflows =
            |(_, name): &(String, String), counter: &Counter| name == "ListenDrops" && counter.value() <= overflows;
        let mut telling: Vec<_> = self
            .values
            .iter()
            .filter(|(key, counter)| counter.value() > 0 && !only_overflows(key, counter))
            .filter_map(|(key, counter)| Some((text(key)?, *counter)))
            .collect();
        telling.sort_by_key(|(_, counter)| std::cmp::Reverse(counter.value()));
        telling
    }

    /// Whether the text has each counter at least twice, so that values are what happened between.
    pub fn window(&self) -> bool {
        !self.values.is_empty() && self.values.values().all(|counter| counter.times > 1)
    }

    /// Whether this is `netstat -s` in another language, of which only the sections are understood.
    pub fn foreign(&self) -> bool {
        self.values.is_empty() && self.lines > 10
    }

    /// The counters of these groups as the kernel prints them, a line of names and one of values for each group: as they stood
    /// first, or last. `None` without the first of the groups.
    pub fn file(&self, groups: &[&str], last: bool) -> Option<Vec<u8>> {
        let mut text = String::new();
        for group in groups {
            let mut values: BTreeMap<&str, u64> = BTreeMap::new();
            if self.extended && *group == "TcpExt" {
                values.extend(PRINTED_UNLESS_ZERO.iter().map(|name| (*name, 0)));
            }
            let own = self.values.iter().filter(|((of, _), _)| of == group);
            values.extend(
                own.map(|((_, name), counter)| (name.as_str(), if last { counter.last } else { counter.first })),
            );
            if values.is_empty() {
                continue;
            }
            let names: Vec<_> = values.keys().copied().collect();
            let numbers: Vec<_> = values.values().map(u64::to_string).collect();
            text.push_str(&format!("{group}: {}\n{group}: {}\n", names.join(" "), numbers.join(" ")));
        }
        let required = groups.first().is_some_and(|first| text.starts_with(&format!("{first}: ")));
        required.then(|| text.into_bytes())
    }

    fn value(&self, group: &str, name: &str) -> Option<u64> {
        self.values.get(&(group.to_owned(), name.to_owned())).map(Counter::value)
    }

    /// Share of the segments that were sent again, if the path loses packets.
    pub fn lossy(&self) -> Option<f64> {
        // SYNs that nobody answers are sent again too, and tell nothing of the path's quality.
        let again =
            self.value("Tcp", "RetransSegs")?.saturating_sub(self.value("TcpExt", "TCPSynRetrans").unwrap_or(0));
        let share = again as f64 / self.value("Tcp", "OutSegs").filter(|sent| *sent > 0)? as f64;
        (share >= LOSSY).then_some(share)
    }

    /// Whether the counter is one that grows on healthy hosts, and small here against all connections.
    pub fn ordinary(&self, text: &ErrorText, counter: Counter) -> bool {
        let name = text.counter.as_deref().and_then(|name| name.split_once('.')).map_or("", |(_, name)| name);
        let opened =
            self.value("Tcp", "ActiveOpens").zip(self.value("Tcp", "PassiveOpens")).map(|(a, p)| a.saturating_add(p));
        let few = opened.is_none_or(|opened| (counter.value() as f64) < NOTABLE * opened as f64);
        ORDINARY.contains(&name) && (few || name == "RetransSegs" && self.lossy().is_none() || name == "TCPKeepAlive")
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        let since = if self.window() { "between the two" } else { "since boot" };
        for (text, counter) in self.telling() {
            let name = text.counter.as_deref().and_then(|name| name.split_once('.')).map_or("", |(_, name)| name);
            let weight = if self.ordinary(text, counter) {
                0.05
            } else if ORDINARY.contains(&name) {
                0.3
            } else {
                1.0
            };
            let size = (counter.value() as f64).log10() + 1.0;
            for (rank, candidate) in text.causes.iter().enumerate() {
                let reason = format!("{} {name} {since}: {}", thousands(counter.value()), candidate.why);
                support(&candidate.id, weight * size / ((rank + 1) * (rank + 1)) as f64, reason, text);
            }
        }
    }
}

/// `TcpExtListenOverflows` in group and name.
fn grouped(name: &str) -> Option<(&'static str, &str)> {
    GROUPS.iter().find_map(|group| {
        let rest = name.strip_prefix(group)?;
        rest.starts_with(|c: char| c.is_ascii_uppercase()).then_some((*group, rest))
    })
}

/// Lines of `netstat -s` that tell of no fault but how large the others are.
fn plain(words: &str) -> Option<&'static str> {
    let is = |old: &str, new: &str| words.ends_with(old) || words.ends_with(new);
    if is("active connections openings", "active connection openings") {
        Some("ActiveOpens")
    } else if is("passive connection openings", "passive connections openings") {
        Some("PassiveOpens")
    } else if is("segments send out", "segments sent out") {
        Some("OutSegs")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Counters {
        let mut counters = Counters::default();
        text.lines().for_each(|line| {
            counters.line(line);
        });
        counters
    }

    #[test]
    fn all_forms_of_one_counter_are_the_same() {
        for text in [
            "TcpExt:\n    72 times the listen queue of a socket overflowed",
            "    72 times the listen queue of a socket overflowed",
            "#kernel\nTcpExtListenOverflows           72                 0.0",
            "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 72",
            "node_netstat_TcpExt_ListenOverflows 72",
        ] {
            let counters = read(text);
            assert_eq!(counters.value("TcpExt", "ListenOverflows"), Some(72), "{text}");
            assert_eq!(counters.telling().len(), 1, "{text}");
        }
        assert_eq!(
            read("Tcp:\n    17 active connections openings\n    2 segments send out").value("Tcp", "ActiveOpens"),
            Some(17)
        );
    }

    #[test]
    fn two_times_are_a_window() {
        let counters = read("TcpExtListenOverflows 70 0.0\nTcpExtListenOverflows 72 0.0");
        assert!(counters.window());
        assert_eq!(counters.value("TcpExt", "ListenOverflows"), Some(2));
    }

    #[test]
    fn zero_and_ordinary_say_nothing() {
        assert!(read("TcpExtListenOverflows 0 0.0").telling().is_empty());
        let counters = read("Tcp: ActiveOpens PassiveOpens OutRsts\nTcp: 100000 100000 1003");
        let (text, counter) = counters.telling()[0];
        assert!(counters.ordinary(text, counter));
    }

    #[test]
    fn what_is_no_counter_is_left() {
        for line in ["everything is fine", "Tcp: hello", "GET /a 200 10054", "state: 3", "  12 apples", "a 1 2.0", ""] {
            assert!(!Counters::default().line(line), "{line}");
        }
    }
}
