//! Rates of TCP that sysstat kept: `sar -n TCP,ETCP`, and what `sadf` makes of it (-d, -p, -j).

use std::collections::BTreeMap;

use super::Support;
use crate::knowledge::error_texts;

/// The columns that are read, and the counter that each is the rate of (sar(1)).
const COLUMNS: [(&str, (&str, &str), &str); 9] = [
    ("active/s", ("Tcp", "ActiveOpens"), "connects"),
    ("passive/s", ("Tcp", "PassiveOpens"), "accepted connections"),
    ("iseg/s", ("Tcp", "InSegs"), "segments received"),
    ("oseg/s", ("Tcp", "OutSegs"), "segments sent"),
    ("atmptf/s", ("Tcp", "AttemptFails"), "failed connects"),
    ("estres/s", ("Tcp", "EstabResets"), "connections that ended by a reset"),
    ("retrans/s", ("Tcp", "RetransSegs"), "segments sent again"),
    ("isegerr/s", ("Tcp", "InErrs"), "bad segments"),
    ("orsts/s", ("Tcp", "OutRsts"), "RSTs sent"),
];
/// Those that tell of refused or reset connections.
const TELLING: [&str; 3] = ["atmptf/s", "estres/s", "orsts/s"];
/// Below it a rate is what every host has, 1/s.
const NOTABLE: f64 = 1.0;
/// So many times the usual rate is a peak.
const PEAK: f64 = 5.0;
/// Share of the segments sent that were sent again, above which the path loses packets.
const LOSSY: f64 = 0.01;
/// Samples of a column that are kept.
const MOST: usize = 100_000;

/// Rates that a text shows.
#[derive(Debug, Default)]
pub struct Rates {
    /// Lines that were understood.
    pub lines: u64,
    /// A banner or a heading was there, so that other tables of it are tables.
    within: bool,
    /// Names of the columns that come next, behind the time.
    heading: Vec<String>,
    /// By column: time as it is printed, and rate.
    samples: BTreeMap<&'static str, Vec<(String, f64)>>,
}

fn column(name: &str) -> Option<&'static str> {
    COLUMNS.iter().map(|(column, ..)| *column).find(|column| *column == name)
}

fn number(word: &str) -> Option<f64> {
    word.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

/// `03:00:37`, with or without AM and PM behind it.
fn clock(word: &str) -> bool {
    word.len() == 8
        && word.bytes().enumerate().all(|(at, byte)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() })
}

impl Rates {
    /// Takes the line if it is one of sar or sadf.
    pub fn line(&mut self, line: &str) -> bool {
        let taken = self.table(line) || self.database(line) || self.plain(line) || self.json(line);
        self.lines += u64::from(taken);
        self.within |= taken;
        taken
    }

    fn add(&mut self, column: &'static str, at: &str, rate: f64) {
        let samples = self.samples.entry(column).or_default();
        if samples.len() < MOST {
            samples.push((at.to_owned(), rate));
        }
    }

    fn row<'a>(&mut self, at: &str, values: impl Iterator<Item = &'a str>) -> bool {
        let names = self.heading.clone();
        let mut any = false;
        for (name, value) in names.iter().zip(values) {
            if let (Some(column), Some(rate)) = (column(name), number(value)) {
                self.add(column, at, rate);
                any = true;
            }
        }
        any
    }

    /// `03:00:38         0.00      0.00 ...` below `03:00:37     atmptf/s  estres/s ...`.
    fn table(&mut self, line: &str) -> bool {
        if line.starts_with("Linux ") && line.trim_end().ends_with(" CPU)") {
            return true;
        }
        let mut words = line.split_whitespace().peekable();
        let Some(first) = words.next() else { return false };
        let average = first == "Average:" || first == "Durchschn.:" || first == "Summary:";
        if !average && !clock(first) {
            return false;
        }
        let half = words.next_if(|word| *word == "AM" || *word == "PM");
        let at = half.map_or(first.to_owned(), |half| format!("{first} {half}"));
        let rest: Vec<&str> = words.collect();
        if rest.iter().any(|word| column(word).is_some()) {
            self.heading = rest.iter().map(|word| (*word).to_owned()).collect();
            return true;
        }
        // Headings of other tables, and LINUX RESTART.
        if self.within
            && rest
                .iter()
                .any(|word| word.ends_with("/s") || word.starts_with('%') || *word == "RESTART" || *word == "tcpsck")
        {
            self.heading.clear();
            return true;
        }
        if average {
            return self.within;
        }
        self.row(&at, rest.into_iter()) || self.within && self.heading.is_empty()
    }

    /// `vm;1;2026-11-27 03:00:38 UTC;0.00;...` below `# hostname;interval;timestamp;atmptf/s;...`.
    fn database(&mut self, line: &str) -> bool {
        if let Some(names) = line.strip_prefix("# hostname;interval;timestamp;") {
            self.heading = names.split(';').map(str::to_owned).collect();
            return true;
        }
        let fields: Vec<&str> = line.split(';').collect();
        let [_, _, at, values @ ..] = &fields[..] else { return false };
        self.within && self.row(at, values.iter().copied())
    }

    /// `vm 1 2026-11-27 03:00:38 UTC - atmptf/s 0.00`, with tabs between.
    fn plain(&mut self, line: &str) -> bool {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, _, at, _, name, value] = fields[..] else { return false };
        let (Some(column), Some(rate)) = (column(name), number(value.trim())) else { return false };
        self.add(column, at, rate);
        true
    }

    /// `"net-etcp": {"atmptf": 0.00, "estres": 0.00, ...}`, of `sadf -j`.
    fn json(&mut self, line: &str) -> bool {
        let line = line.trim();
        if line.starts_with("{\"sysstat\": {") {
            return true;
        }
        let Some((_, values)) = line.strip_prefix("\"net-").and_then(|rest| rest.split_once("tcp\": {")) else {
            // Times and names around it.
            return self.within && line.starts_with(['"', '{', '}', ']']);
        };
        for pair in values.trim_end_matches([',', '}', ' ']).split(',') {
            if let Some((name, value)) = pair.split_once(':')
                && let Some(column) = column(&format!("{}/s", name.trim().trim_matches('"')))
                && let Some(rate) = number(value.trim())
            {
                self.add(column, "", rate);
            }
        }
        true
    }

    /// The highest rate of a column, when it was, and the rate in the middle.
    fn peak(&self, column: &str) -> Option<(f64, &str, f64)> {
        let samples = self.samples.get(column)?;
        let (at, peak) = samples.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let mut rates: Vec<f64> = samples.iter().map(|(_, rate)| *rate).collect();
        rates.sort_by(f64::total_cmp);
        Some((*peak, at, rates.get(rates.len() / 2).copied()?))
    }

    fn total(&self, column: &str) -> f64 {
        self.samples.get(column).into_iter().flatten().map(|(_, rate)| rate).sum()
    }

    fn said(&self, column: &str) -> Option<(String, f64)> {
        let (peak, at, usual) = self.peak(column).filter(|(peak, ..)| *peak >= NOTABLE)?;
        let words = COLUMNS.iter().find(|(name, ..)| *name == column).map_or("", |(.., words)| *words);
        let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
        let text = format!("{words}: {peak:.1}/s{at}, {usual:.1}/s in the middle of all samples");
        Some((text, if peak >= PEAK * usual.max(NOTABLE) { 1.0 } else { 0.3 }))
    }

    /// What the rates show, in words.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = TELLING.iter().filter_map(|column| Some(self.said(column)?.0)).collect();
        let (again, sent) = (self.total("retrans/s"), self.total("oseg/s"));
        if sent > 0.0 && again / sent >= LOSSY {
            remarks
                .push(format!("{:.1} % of the segments were sent again: the path loses packets", 100.0 * again / sent));
        }
        if self.lines > 0 && remarks.is_empty() {
            remarks.push("sar: no resets and no failed connects worth a word".to_owned());
        }
        remarks
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        for (name, (group, counter), _) in COLUMNS.iter().filter(|(name, ..)| TELLING.contains(name)) {
            let Some(((said, weight), text)) = self.said(name).zip(error_texts::counter(group, counter)) else {
                continue;
            };
            for (rank, candidate) in text.causes.iter().enumerate() {
                let reason = format!("{said}: {}", candidate.why);
                support(&candidate.id, weight / ((rank + 1) * (rank + 1)) as f64, reason, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Rates {
        let mut rates = Rates::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            assert!(rates.line(line), "{line}");
        }
        rates
    }

    #[test]
    fn all_forms_say_the_same() {
        for text in [
            "Linux 6.18.44 (vm) \t11/27/26 \t_x86_64_\t(2 CPU)\n\n03:00:37     atmptf/s  estres/s retrans/s isegerr/s   orsts/s\n03:00:38         0.00      0.00      0.00      0.00      412.50\nAverage:         0.00      0.00      0.00      0.00      412.50\n03:00:37        IFACE   rxpck/s   txpck/s\n03:00:38           lo      3.00      4.00\n",
            "03:00:37 PM  atmptf/s  estres/s retrans/s isegerr/s   orsts/s\n03:00:38 PM      0,00      0,00      0,00      0,00      412,50\n",
            "# hostname;interval;timestamp;atmptf/s;estres/s;retrans/s;isegerr/s;orsts/s\nvm;1;2026-11-27 03:00:38 UTC;0.00;0.00;0.00;0.00;412.50\n",
            "vm\t1\t2026-11-27 03:00:38 UTC\t-\torsts/s\t412.50\n",
            "{\"sysstat\": {\n\t\"hosts\": [\n\"net-etcp\": {\"atmptf\": 0.00, \"estres\": 0.00, \"orsts\": 412.50}\n",
        ] {
            let rates = read(text);
            assert_eq!(rates.peak("orsts/s").map(|(peak, ..)| peak), Some(412.5), "{text}");
            assert_eq!(rates.remarks().len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_left() {
        for line in ["03:00:38 all is well", "Average: 3", "a;b;c;d", "a\tb\tc\td\te\tf", "{\"a\": 1}", "\"x\": 2", ""]
        {
            assert!(!Rates::default().line(line), "{line}");
        }
    }
}
