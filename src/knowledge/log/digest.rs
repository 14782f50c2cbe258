//! What a log contains: its errors with places and times, what happened beside them, and what was not understood.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead};
use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::encoding::decoded;
use super::fields::{self, Fields};
use super::reader::read_line;
use super::time::{Stamp, Times};
use crate::knowledge::error_texts::{self, ErrorText};
use crate::knowledge::paste::{Paste, Taken};
use crate::value::words::thousands;

/// Occurrences of errors that are kept one by one; further ones are only counted.
const OCCURRENCES: usize = 20_000;
/// Lines about starts, stops and reloads that are kept.
const CHANGES: usize = 1_000;
/// Different servers, clients or paths that are counted for one text.
const PLACES: usize = 64;
/// Servers and clients whose last line without error is remembered.
const PEERS: usize = 4_096;
/// Lines that are shown as not understood.
const SAMPLES: usize = 2;
/// Lines between the first line of an error and the one that says what it was.
const HEADING: u64 = 2;
/// Lines without a time that belong to the last one with a time: a stack trace.
const TRACE: u64 = 50;
/// Longest beginning of a line that is kept, in bytes.
const SAMPLE: usize = 160;

/// How often each value occurred.
#[derive(Debug, Clone, Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, value: Option<String>) {
        let Some(value) = value else { return };
        if self.0.len() < PLACES || self.0.contains_key(&value) {
            *self.0.entry(value).or_default() += 1;
        }
    }

    /// The values, the most frequent first.
    pub fn ranked(&self) -> Vec<(&str, u64)> {
        let mut ranked: Vec<_> = self.0.iter().map(|(value, count)| (value.as_str(), *count)).collect();
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ranked
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// One error text, and where it occurred.
#[derive(Debug, Clone)]
pub struct KnownText {
    pub text: &'static ErrorText,
    pub lines: u64,
    /// Line numbers from 1.
    pub first: u64,
    pub last: u64,
    pub servers: Tally,
    pub clients: Tally,
    pub paths: Tally,
    /// What the first line says, for the commands that are shown.
    pub example: Fields,
}

/// One line with an error.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence {
    /// Number of the text in [`Digest::found`].
    pub found: usize,
    pub line: u64,
    pub at: Option<Stamp>,
    /// Seconds without traffic before it: as the line says, or since the last line without error about the same end.
    pub idle: Option<f64>,
    /// The line itself says how long.
    pub stated: bool,
}

/// A line about a start, stop, reload or deployment.
#[derive(Debug, Clone)]
pub struct Change {
    pub line: u64,
    pub at: Option<Stamp>,
    pub words: String,
}

/// Lines that nobody understood.
#[derive(Debug, Clone, Default)]
pub struct Unknown {
    pub lines: u64,
    /// Number and beginning of the first ones.
    pub samples: Vec<(u64, String)>,
}

impl Unknown {
    /// An error that is understood explains the lines just above it: a program names itself before it prints the error.
    fn explained(&mut self, line: u64) {
        while self.samples.last().is_some_and(|(unknown, _)| line - unknown <= HEADING) {
            self.samples.pop();
            self.lines -= 1;
        }
    }

    fn add(&mut self, line: u64, text: &[u8]) {
        self.lines += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push((line, beginning(text)));
        }
    }
}

/// What a log or pasted text contains.
#[derive(Debug, Default)]
pub struct Digest {
    /// Lines read.
    pub lines: u64,
    /// Lines longer than [`super::MAX_LINE`], of which only the beginning was looked at.
    pub cut: u64,
    /// In the order in which they first occurred.
    pub found: Vec<KnownText>,
    pub occurrences: Vec<Occurrence>,
    pub changes: Vec<Change>,
    pub first: Option<Stamp>,
    pub last: Option<Stamp>,
    /// Messages that the kernel's rate limit held back.
    pub suppressed: u64,
    /// Output of netstat, nstat, ss and tcpdump.
    pub paste: Paste,
    /// Lines that look like an error and are not known.
    pub errors_unknown: Unknown,
    /// Lines within pasted output that were not understood.
    pub paste_unknown: Unknown,
    /// Where several texts were read: lines before each, and its name.
    texts: Vec<(u64, String)>,
}

impl Digest {
    /// `line 7`; of several texts which: `b.txt line 7`.
    pub fn place(&self, line: u64) -> String {
        self.places(line, line)
    }

    /// `lines 7 to 1,200`, likewise.
    pub fn places(&self, first: u64, last: u64) -> String {
        let text = |line: u64| self.texts.iter().rfind(|(before, _)| *before < line);
        let one = |line: u64| match text(line) {
            Some((before, name)) => format!("{name} line {}", thousands(line - before)),
            None => format!("line {}", thousands(line)),
        };
        match (text(first), text(last)) {
            _ if first == last => one(first),
            (Some((before, name)), Some((other, _))) if before == other => {
                format!("{name} lines {} to {}", thousands(first - before), thousands(last - before))
            }
            (None, None) => format!("lines {} to {}", thousands(first), thousands(last)),
            _ => format!("{} to {}", one(first), one(last)),
        }
    }
}

const CHANGED: [&str; 17] = [
    r"\bsystemd\[1\]: (?:Start|Stopp?|Reload)(?:ed|ing)\b",
    r"\bstart worker process(?:es)?\b",
    r"\bready for (?:start up|connections)\b",
    r"\bready to (?:accept|handle) connections\b",
    r"\blistening (?:on|at)\b",
    r"\bserver (?:is )?(?:started|listening|ready)\b",
    r"\bsignal \d+ \(SIG(?:HUP|TERM|QUIT|USR2)\)",
    r"\b(?:received|got|caught) (?:signal |shutdown )?SIG(?:TERM|HUP|INT|QUIT)\b",
    r"\bshutting down\b",
    r"\bgracefully shutting\b",
    r"\breconfiguring\b|\breloading\b",
    r"\bdeploy(?:ed|ing|ment)\b",
    r"\bscaled (?:up|down) replica\b",
    r"\b(?:killing|stopping) container\b",
    r"\bcontainer (?:start|stop|die|kill|restart)(?:ed)?\b",
    r"\bstarted \w+ in [\d.]+ seconds\b",
    r"\brestart(?:ed|ing)\b",
];

static CHANGED_SET: LazyLock<RegexSet> = LazyLock::new(|| set(&CHANGED));

/// Words that make a line without a known text look like an error.
static ALARM: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        r"\b(?:error|errno|fatal|panic|critical|crit|alert|emerg|severe|exception)\b",
        r"\b(?:failed|failure|refused|aborted|timed out|timeout|unreachable|broken|rejected|denied)\b",
    ])
});

fn set(patterns: &[&str]) -> RegexSet {
    // A test compiles all of them.
    let set = RegexSetBuilder::new(patterns).unicode(false).case_insensitive(true).build();
    set.unwrap_or_else(|_| RegexSet::empty())
}

/// Reads everything to its end.
///
/// # Errors
/// The reader's.
pub fn digest(reader: &mut dyn BufRead) -> io::Result<Digest> {
    let mut reading = Reading::default();
    reading.read(None, reader)?;
    Ok(reading.finish())
}

/// Reads texts of one host one after the other.
#[derive(Default)]
pub struct Reading(State);

impl Reading {
    /// Reads a text to its end; `name`: as its lines are told from those of the others.
    ///
    /// # Errors
    /// The reader's.
    pub fn read(&mut self, name: Option<&str>, reader: &mut dyn BufRead) -> io::Result<()> {
        let digest = &mut self.0.digest;
        digest.texts.extend(name.map(|name| (digest.lines, name.to_owned())));
        let mut reader = decoded(reader)?;
        let mut line = Vec::new();
        while let Some(complete) = read_line(&mut *reader, &mut line)? {
            self.0.digest.lines += 1;
            self.0.digest.cut += u64::from(!complete);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            self.0.line(&line);
        }
        // A stack trace, or an error's line without a time, does not go on in another text.
        self.0.dated = None;
        Ok(())
    }

    pub fn finish(self) -> Digest {
        self.0.digest
    }
}

#[derive(Default)]
struct State {
    digest: Digest,
    times: Times,
    /// Number in `found` of each text, by its address.
    known: HashMap<*const ErrorText, usize>,
    /// The last line with a time, and that time.
    dated: Option<(u64, Stamp)>,
    /// When each end was last seen without an error.
    fine: HashMap<String, Stamp>,
}

impl State {
    fn line(&mut self, raw: &[u8]) {
        if raw.trim_ascii().is_empty() {
            return;
        }
        let number = self.digest.lines;
        match self.digest.paste.line(raw) {
            Taken::Understood => return,
            Taken::Unread => return self.digest.paste_unknown.add(number, &message(raw)),
            Taken::No => {}
        }
        let at = self.times.read(raw);
        if at.is_some() {
            self.digest.first = self.digest.first.or(at);
            self.digest.last = at;
            self.dated = at.map(|at| (number, at));
        }
        let line = message(raw);
        self.digest.suppressed = self.digest.suppressed.saturating_add(suppressed(&line));
        if let Some(text) = error_texts::matches(&line).into_iter().next() {
            let recent = self.dated.filter(|(line, _)| number - line <= TRACE).map(|(_, at)| at);
            self.error(text, number, at.or(recent), fields::read(&line));
            return;
        }
        if let Some(at) = at {
            self.fine(&line, at);
        }
        if CHANGED_SET.is_match(&line) {
            if self.digest.changes.len() < CHANGES {
                self.digest.changes.push(Change { line: number, at, words: beginning(&line) });
            }
        } else if ALARM.is_match(&line) {
            self.digest.errors_unknown.add(number, &line);
        } else if self.digest.paste.inside() && at.is_none() && !command(&line) {
            self.digest.paste_unknown.add(number, &line);
        }
    }

    fn error(&mut self, text: &'static ErrorText, line: u64, at: Option<Stamp>, fields: Fields) {
        self.digest.errors_unknown.explained(line);
        let server = fields.server.as_ref().map(ToString::to_string);
        let since = [&server, &fields.client].into_iter().flatten().find_map(|end| self.fine.get(end));
        let stated = fields.idle.is_some();
        let idle = fields.idle.or_else(|| at?.since(since?)).filter(|idle| *idle >= 0.0);
        let found = &mut self.digest.found;
        let index = *self.known.entry(text).or_insert_with(|| {
            let places = || (Tally::default(), Tally::default(), Tally::default());
            let (servers, clients, paths) = places();
            found.push(KnownText {
                text,
                lines: 0,
                first: line,
                last: line,
                servers,
                clients,
                paths,
                example: fields.clone(),
            });
            found.len() - 1
        });
        if let Some(found) = found.get_mut(index) {
            found.lines += 1;
            found.last = line;
            found.servers.add(server);
            found.clients.add(fields.client);
            found.paths.add(fields.path);
        }
        if self.digest.occurrences.len() < OCCURRENCES {
            self.digest.occurrences.push(Occurrence { found: index, line, at, idle, stated });
        }
    }

    fn fine(&mut self, line: &[u8], at: Stamp) {
        let (server, client) = fields::ends(line);
        for end in [server.map(|end| end.to_string()), client].into_iter().flatten() {
            if self.fine.len() < PEERS || self.fine.contains_key(&end) {
                self.fine.insert(end, at);
            }
        }
    }
}

/// The line as a person would read it: of JSON its strings, `key=value`, so that escapes and quotes hide nothing.
fn message(line: &[u8]) -> Cow<'_, [u8]> {
    let start = line.trim_ascii_start();
    if !start.starts_with(b"{") {
        return Cow::Borrowed(line);
    }
    match serde_json::from_slice::<serde_json::Value>(start) {
        Ok(serde_json::Value::Object(object)) => {
            let mut text = String::new();
            for (key, value) in &object {
                flatten(key, value, &mut text, 0);
            }
            Cow::Owned(text.into_bytes())
        }
        _ => Cow::Borrowed(line),
    }
}

/// Deepest nesting of JSON that is read.
const DEEPEST: usize = 4;

fn flatten(key: &str, value: &serde_json::Value, text: &mut String, depth: usize) {
    use serde_json::Value;
    match value {
        Value::String(string) => text.push_str(&format!("{key}={string}\n")),
        Value::Number(number) => text.push_str(&format!("{key}={number}\n")),
        // journald gives a message that is no UTF-8 as an array of its bytes.
        Value::Array(bytes) if key == "MESSAGE" => {
            let bytes = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect::<Vec<_>>();
            text.push_str(&format!("{key}={}\n", String::from_utf8_lossy(&bytes)));
        }
        Value::Object(object) if depth < DEEPEST => {
            for (key, value) in object {
                flatten(key, value, text, depth + 1);
            }
        }
        _ => {}
    }
}

/// `net_ratelimit: 981 callbacks suppressed`: so many lines of the kernel are missing.
fn suppressed(line: &[u8]) -> u64 {
    let line = String::from_utf8_lossy(line);
    let Some((before, _)) = line.split_once(" callbacks suppressed") else { return 0 };
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A prompt, or a command without one, between two pasted outputs.
fn command(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let first = line.split_whitespace().next().unwrap_or_default();
    let tools = ["cat", "ss", "netstat", "nstat", "sysctl", "uname", "date", "tcpdump", "sudo", "watch", "ip", "Linux"];
    ["$", "#", ">"].contains(&first) || first.contains('@') || tools.contains(&first)
}

fn beginning(line: &[u8]) -> String {
    let line = line.trim_ascii();
    String::from_utf8_lossy(line.get(..line.len().min(SAMPLE)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_are_sound() {
        assert_eq!(CHANGED_SET.len(), CHANGED.len());
        assert_eq!(ALARM.len(), 2);
    }

    fn read(log: &str) -> Digest {
        digest(&mut log.as_bytes()).expect("read")
    }

    #[test]
    fn errors_are_counted_with_their_places() {
        let line = |path: &str, port| {
            format!(
                "2026/11/20 14:02:11 [error] 1#0: *1 recv() failed (104: Connection reset by peer) while reading response header from upstream, client: 10.0.0.1, request: \"GET {path} HTTP/1.1\", upstream: \"http://10.0.0.7:{port}/\"\n"
            )
        };
        let digest = read(&format!("{}{}fine\n{}", line("/a", 80), line("/b", 80), line("/a?x=1", 81)));
        let found = &digest.found[0];
        assert_eq!((digest.lines, digest.found.len(), found.lines, found.first, found.last), (4, 1, 3, 1, 4));
        assert_eq!(found.servers.ranked(), [("10.0.0.7:80", 2), ("10.0.0.7:81", 1)]);
        assert_eq!(found.paths.ranked(), [("/a", 2), ("/b", 1)]);
        assert_eq!(found.clients.ranked(), [("10.0.0.1", 3)]);
    }

    #[test]
    fn journald_and_other_json_is_read() {
        let digest = read(
            "{\"MESSAGE\":\"error: Exceeded MaxStartups\",\"__REALTIME_TIMESTAMP\":\"1795183331031000\"}\n{\"MESSAGE\":[67,111,110,110,101,99,116,105,111,110,32,114,101,115,101,116,32,98,121,32,112,101,101,114]}\n{\"level\":\"error\",\"err\":\"read tcp 10.0.0.1:1->10.0.7.1:5432: read: connection reset by peer\"}\n",
        );
        let names: Vec<_> = digest.found.iter().map(|found| (&found.text.name[..10], found.lines)).collect();
        assert_eq!(names, [("sshd: MaxS", 1), ("Connection", 2)]);
        assert!(digest.first.is_some());
    }

    #[test]
    fn an_error_that_is_not_known_is_named() {
        let digest = read("all fine\nERROR flux capacitor misaligned\n");
        assert_eq!(digest.errors_unknown.samples, [(2, "ERROR flux capacitor misaligned".to_owned())]);
    }

    #[test]
    fn idle_time_is_counted_from_the_last_line_without_error() {
        let digest = read(
            "2026-11-20 14:00:00 query on 10.0.0.5:5432 ok\n2026-11-20 14:05:50 read tcp 10.0.0.1:9->10.0.0.5:5432: read: connection reset by peer\n",
        );
        assert_eq!(digest.occurrences[0].idle, Some(350.0));
    }

    #[test]
    fn what_the_kernel_held_back_is_counted() {
        assert_eq!(read("[1.000000] net_ratelimit: 981 callbacks suppressed\n").suppressed, 981);
    }
}
