//! What could not be checked, grouped by what is missing, so that one privilege is asked for once.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::Page;
use crate::cause;
use crate::diagnosis::NotChecked;

/// Causes that lack the same thing.
pub struct Missed {
    /// What would make it work, or why nothing does.
    pub what: String,
    pub titles: Vec<String>,
    /// Why it is not there, each once: `reset_events: ...`.
    pub reasons: Vec<String>,
}

/// What something would help against comes first.
pub fn missed(not_checked: &[NotChecked]) -> Vec<Missed> {
    let all: Vec<_> = not_checked.iter().collect();
    let (hopeful, hopeless): (Vec<_>, Vec<_>) = groups(&all).into_iter().partition(|group| group.helps);
    let told = |group: Group<'_>| {
        let gaps = group.entries.iter().flat_map(|entry| entry.all()).filter(|_| group.helps);
        let reasons: BTreeSet<_> = gaps.map(|missing| format!("{}: {}", missing.source, missing.reason)).collect();
        Missed { titles: group.titles(), reasons: reasons.into_iter().collect(), what: group.what }
    };
    hopeful.into_iter().chain(hopeless).map(told).collect()
}

/// Adds the section if anything could not be checked.
pub fn write(page: &mut Page, not_checked: &[NotChecked]) {
    if not_checked.is_empty() {
        return;
    }
    page.gap();
    page.heading("Could not check");
    for missed in missed(not_checked) {
        page.field("  -", 4, &format!("{}: {}", missed.what, missed.titles.join(", ")));
        missed.reasons.iter().for_each(|reason| page.field("", 6, &format!("({reason})")));
    }
}

/// `rejected by the firewall, port scan and 3 more: needs root`, a text for each need.
pub fn by_need(not_checked: &[&NotChecked]) -> Vec<String> {
    const NAMED: usize = 2;
    // Who becomes root needs no capability: these are in the long report.
    let mut by_need: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for group in groups(not_checked) {
        let what = group.what.split([';', '(']).next().unwrap_or_default().trim();
        let what = what.split_once(" or CAP_").map_or(what, |(root, _)| root);
        by_need.entry(what.to_owned()).or_default().extend(group.titles());
    }
    let told = |(what, titles): (String, Vec<String>)| {
        let named = titles.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        match titles.len().saturating_sub(NAMED) {
            0 => format!("{named}: {what}"),
            more => format!("{named} and {more} more: {what}"),
        }
    };
    by_need.into_iter().map(told).collect()
}

/// Causes that lack the same thing.
struct Group<'a> {
    /// What would make it work, or why nothing does.
    what: String,
    /// Something would make it work.
    helps: bool,
    entries: Vec<&'a NotChecked>,
}

impl Group<'_> {
    fn titles(&self) -> Vec<String> {
        self.entries.iter().map(|entry| title(entry.id)).collect()
    }
}

/// By what would make it work; what nothing would make work, by the reason.
fn groups<'a>(not_checked: &[&'a NotChecked]) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(bool, String), Vec<&'a NotChecked>> = BTreeMap::new();
    for entry in not_checked {
        let key = match entry.needs() {
            Some(needs) => (true, needs),
            None => (false, entry.reason()),
        };
        groups.entry(key).or_default().push(entry);
    }
    groups
        .into_iter()
        .map(|((helps, what), entries)| {
            let what = if helps { format!("needs {what}") } else { what };
            Group { what, helps, entries }
        })
        .collect()
}

/// The title of the cause with this id, inside a sentence.
pub fn title(id: &str) -> String {
    cause::by_id(id).map_or_else(|| id.to_owned(), |cause| title_of(cause.title))
}

/// A title inside a sentence: `Accept queue overflow` begins small, `SYN flood` does not.
pub fn title_of(title: &str) -> String {
    let mut characters = title.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(characters).collect(),
        _ => title.to_owned(),
    }
}
