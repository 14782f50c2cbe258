//! Error texts that people find in logs: what each means on the wire, and which causes lead to it, the likeliest first.

use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// One error text, or one counter of the kernel, with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorText {
    /// The text as people know it, with the program that prints it where it is peculiar to one.
    pub name: String,
    /// Alternatives; of each all parts must occur. A part is plain text, or a regular expression behind `~`.
    matches: Vec<Vec<String>>,
    /// Parts that make the line mean something else.
    #[serde(default)]
    unless: Vec<String>,
    /// What a person may type who knows no more: `104`. In a log such a word alone means nothing.
    #[serde(default)]
    typed: Vec<String>,
    /// The counter's group and name as in `/proc/net/netstat` or `snmp`: `TcpExt.ListenOverflows`.
    #[serde(default)]
    pub counter: Option<String>,
    /// The line itself says its first cause.
    #[serde(default)]
    pub certain: bool,
    /// It is no error that a connection met, but something that ends or stops connections: a root beside the symptoms.
    #[serde(default)]
    pub event: bool,
    /// What happened on the wire.
    pub meaning: String,
    /// Causes that lead to it, the likeliest first; empty where nothing was refused, lost or reset.
    pub causes: Vec<Candidate>,
    /// Commands that tell the causes apart; words in capitals are to be filled in.
    pub tell_apart: Vec<String>,
    pub change: String,
}

/// A cause that leads to an error text, and when it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Candidate {
    /// Id of the contract.
    pub id: String,
    /// When it is this cause, in a few words.
    pub why: String,
}

impl TryFrom<String> for Candidate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (id, why) = text.split_once(": ").ok_or_else(|| format!("{text:?} has no reason behind a colon"))?;
        Ok(Self { id: id.to_owned(), why: why.to_owned() })
    }
}

#[derive(Deserialize)]
struct File {
    text: Vec<ErrorText>,
}

/// The particular before the general: its author knows better than a length which of two texts of a line says more.
const FILES: [&str; 11] = [
    include_str!("error_texts/kernel.toml"),
    include_str!("error_texts/crash.toml"),
    include_str!("error_texts/limit.toml"),
    include_str!("error_texts/nginx.toml"),
    include_str!("error_texts/proxy.toml"),
    include_str!("error_texts/database.toml"),
    include_str!("error_texts/client.toml"),
    include_str!("error_texts/tool.toml"),
    include_str!("error_texts/general.toml"),
    include_str!("error_texts/status.toml"),
    include_str!("error_texts/counter.toml"),
];

/// All texts, and the parts of all of them in one automaton, so that a line is read once.
struct Known {
    texts: Vec<ErrorText>,
    parts: RegexSet,
    /// For each text the numbers of the parts of its alternatives, and of those that exclude it.
    wanted: Vec<(Vec<Vec<usize>>, Vec<usize>)>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    // The files are part of the binary, and a test parses them.
    let texts = FILES.iter().filter_map(|file| toml::from_str::<File>(file).ok()).flat_map(|file| file.text);
    Known::new(texts.collect())
});

/// Memory that the automaton may take for states that it meets, bytes.
const AUTOMATON: usize = 16 << 20;

impl Known {
    fn new(texts: Vec<ErrorText>) -> Self {
        let mut patterns = Vec::new();
        let mut number = |part: &String| {
            let pattern = pattern(part);
            patterns.iter().position(|known| *known == pattern).unwrap_or_else(|| {
                patterns.push(pattern);
                patterns.len() - 1
            })
        };
        let mut wanted = Vec::new();
        for text in &texts {
            let alternatives = text.matches.iter().map(|parts| parts.iter().map(&mut number).collect()).collect();
            wanted.push((alternatives, text.unless.iter().map(&mut number).collect()));
        }
        let parts = RegexSetBuilder::new(&patterns)
            .unicode(false)
            .case_insensitive(true)
            .dfa_size_limit(AUTOMATON)
            .build()
            .unwrap_or_else(|_| RegexSet::empty());
        Self { texts, parts, wanted }
    }

    /// Numbers of the texts that occur in the line, in the files' order.
    fn occurring(&self, line: &[u8]) -> Vec<usize> {
        let found = self.parts.matches(line);
        if !found.matched_any() {
            return Vec::new();
        }
        let all = |parts: &Vec<usize>| parts.iter().all(|part| found.matched(*part));
        let occurs = |(alternatives, unless): &(Vec<Vec<usize>>, Vec<usize>)| {
            alternatives.iter().any(all) && !unless.iter().any(|part| found.matched(*part))
        };
        self.wanted.iter().enumerate().filter(|(_, wanted)| occurs(wanted)).map(|(number, _)| number).collect()
    }
}

/// The regular expression of a part. Plain text that begins or ends with a letter or digit must not be cut out of a longer
/// word or number: `errno 9` is not in `errno 98`, `10053` not in `110053`.
fn pattern(part: &str) -> String {
    if let Some(expression) = part.strip_prefix('~') {
        return expression.to_owned();
    }
    let word = |edge: Option<char>| if edge.is_some_and(|c| c.is_ascii_alphanumeric()) { r"\b" } else { "" };
    format!("{}{}{}", word(part.chars().next()), regex::escape(part), word(part.chars().next_back()))
}

/// All texts and counters, the particular before the general.
pub fn all() -> &'static [ErrorText] {
    &KNOWN.texts
}

/// Error texts that occur in a line of a log, the best first. Upper and lower case are alike.
pub fn matches(line: &[u8]) -> Vec<&'static ErrorText> {
    texts(KNOWN.occurring(line)).filter(|text| text.counter.is_none()).collect()
}

/// The texts and counters that a person may mean who typed these words, the best first.
pub fn meant(words: &str) -> Vec<&'static ErrorText> {
    let typed = words.trim().to_lowercase();
    let typed = typed.trim_matches(['"', '\'', '(', ')', '.', ':']);
    let number = typed.strip_prefix("errno ").or_else(|| typed.strip_prefix("error ")).unwrap_or(typed);
    let exact = all().iter().filter(|text| text.typed.iter().any(|word| word == number));
    let counters = all().iter().filter(|text| text.counter.as_deref().is_some_and(|name| names_counter(words, name)));
    let mut meant: Vec<&ErrorText> = exact.chain(counters).collect();
    let occurring: Vec<_> = texts(KNOWN.occurring(words.as_bytes())).collect();
    meant.extend(
        occurring.into_iter().filter(|text| !meant.iter().any(|known| std::ptr::eq(*known, *text))).collect::<Vec<_>>(),
    );
    meant
}

fn texts(numbers: Vec<usize>) -> impl Iterator<Item = &'static ErrorText> {
    numbers.into_iter().filter_map(|number| all().get(number))
}

/// Whether a word is the counter's name in one of the forms in which programs print it: `ListenOverflows`,
/// `TcpExtListenOverflows`, `node_netstat_TcpExt_ListenOverflows`.
fn names_counter(words: &str, counter: &str) -> bool {
    let Some((group, name)) = counter.split_once('.') else { return false };
    words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| {
        let word = word.strip_prefix("node_netstat_").unwrap_or(word);
        let bare = word.strip_prefix(group).unwrap_or(word).trim_start_matches('_');
        bare.eq_ignore_ascii_case(name)
    })
}

/// The counter with this group and name, if it tells of refused, lost or reset connections.
pub fn counter(group: &str, name: &str) -> Option<&'static ErrorText> {
    let is = |text: &&ErrorText| text.counter.as_deref().and_then(|it| it.split_once('.')) == Some((group, name));
    all().iter().find(is)
}

/// The counter that tells of this cause before others.
pub fn counter_of(cause: &str) -> Option<&'static ErrorText> {
    let place = |text: &ErrorText| text.causes.iter().position(|known| known.id == cause);
    let counters = all().iter().filter(|text| text.counter.is_some());
    counters.filter_map(|text| Some((place(text)?, text))).min_by_key(|(place, _)| *place).map(|(_, text)| text)
}

/// The counter that `netstat -s` prints with these words behind or around its number.
pub fn counter_in_words(line: &[u8]) -> Option<&'static ErrorText> {
    texts(KNOWN.occurring(line)).find(|text| text.counter.is_some())
}

#[cfg(test)]
mod tests;
