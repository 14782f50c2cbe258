//! `sysctl -a`, and the statistics of connection tracking as `conntrack -S` prints them.

use std::collections::BTreeMap;

/// Settings that are kept, of some thousand.
const MOST: usize = 10_000;

/// Settings that a text shows.
#[derive(Debug, Default)]
pub struct Settings {
    /// Lines that were understood.
    pub lines: u64,
    values: BTreeMap<String, String>,
    /// A line of `conntrack -S` for each CPU: names with their values.
    tracking: Vec<Vec<(String, u64)>>,
}

impl Settings {
    /// Takes the line if it is a setting.
    pub fn line(&mut self, line: &str) -> bool {
        let taken = self.sysctl(line) || self.conntrack(line);
        self.lines += u64::from(taken);
        taken
    }

    /// `net.core.somaxconn = 4096`, `net.core.somaxconn=4096`.
    fn sysctl(&mut self, line: &str) -> bool {
        const TREES: [&str; 10] =
            ["net.", "fs.", "kernel.", "vm.", "abi.", "dev.", "debug.", "user.", "crypto.", "sunrpc."];
        if line.starts_with("sysctl: ") {
            // What it may not read, it says.
            return true;
        }
        let Some((name, value)) = line.split_once('=') else { return false };
        let (name, value) = (name.trim(), value.trim());
        let is_name = TREES.iter().any(|tree| name.starts_with(tree))
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/@:".contains(c))
            && !name.contains("..");
        if !is_name || value.is_empty() && !line.contains(" =") {
            return false;
        }
        if self.values.len() < MOST || self.values.contains_key(name) {
            self.values.insert(name.to_owned(), value.to_owned());
        }
        true
    }

    /// `cpu=0 found=1 invalid=2 insert=0 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=3`.
    fn conntrack(&mut self, line: &str) -> bool {
        if !line.starts_with("cpu=") || !line.contains("invalid=") || self.tracking.len() >= MOST {
            return false;
        }
        let pair = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let row: Vec<_> = line.split_whitespace().filter_map(pair).filter(|(name, _)| name != "cpu").collect();
        self.tracking.push(row);
        true
    }

    /// The value of a setting, by the name that sysctl(8) gives it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The settings with their values.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The statistics as /proc/net/stat/nf_conntrack has them: hexadecimal, a row for each CPU.
    pub fn tracking(&self) -> Option<Vec<u8>> {
        let first = self.tracking.first()?;
        let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
        let mut text = format!("{}\n", names.join(" "));
        for row in self.tracking.iter().filter(|row| row.len() == first.len()) {
            let values: Vec<_> = row.iter().map(|(_, value)| format!("{value:08x}")).collect();
            text.push_str(&format!("{}\n", values.join(" ")));
        }
        Some(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_in_both_spellings_and_nothing_else_is() {
        let mut settings = Settings::default();
        assert!(settings.line("net.core.somaxconn = 4096") && settings.line("net.ipv4.tcp_mem=1\t2\t3"));
        assert_eq!(
            (settings.get("net.core.somaxconn"), settings.get("net.ipv4.tcp_mem")),
            (Some("4096"), Some("1\t2\t3"))
        );
        for line in ["a = b", "net = 3", "user=app db=shop", "net.core.somaxconn", "net.Socket: x == y z", ""] {
            assert!(!Settings::default().line(line), "{line}");
        }
    }

    #[test]
    fn statistics_of_connection_tracking_become_the_kernels_form() {
        let mut settings = Settings::default();
        assert!(settings.line("cpu=0   found=1 invalid=255 insert=0 drop=0"));
        assert!(settings.line("cpu=1   found=0 invalid=1 insert=0 drop=2"));
        let text = String::from_utf8(settings.tracking().expect("two rows")).expect("text");
        assert_eq!(
            text,
            "found invalid insert drop\n00000001 000000ff 00000000 00000000\n00000000 00000001 00000000 00000002\n"
        );
    }
}
