//! What could not be checked, grouped by what is missing, so that one privilege is asked for once.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::Page;
use crate::cause;
use crate::diagnosis::NotChecked;

/// Titles shown for one need without `--all`.
const CAP: usize = 6;

/// Adds the section if anything could not be checked.
pub fn write(page: &mut Page, not_checked: &[NotChecked], all: bool) {
    if not_checked.is_empty() {
        return;
    }
    page.gap();
    page.heading("Could not check");
    let (hopeful, hopeless): (Vec<_>, Vec<_>) = groups(not_checked).into_iter().partition(|group| group.helps);
    for group in &hopeful {
        one(page, group, all);
    }
    if all {
        for group in &hopeless {
            one(page, group, all);
        }
    } else {
        // Nothing can be done about these now, so they get one line.
        let names: Vec<_> = hopeless.iter().flat_map(|group| &group.entries).map(|entry| title(entry.id)).collect();
        match &names[..] {
            [] => {}
            [name] => page.field("  -", 4, &format!("{name} (--all says why)")),
            names => page.field(
                "  -",
                4,
                &format!("{} more, for which this host has no evidence (--all says why)", names.len()),
            ),
        }
    }
}

fn one(page: &mut Page, group: &Group<'_>, all: bool) {
    let mut titles: Vec<String> = group.entries.iter().map(|entry| title(entry.id)).collect();
    let over = titles.len().saturating_sub(CAP);
    if !all && over > 1 {
        titles.truncate(CAP);
        titles.push(format!("{over} more (--all)"));
    }
    page.field("  -", 4, &format!("{}: {}", group.what, titles.join(", ")));
    if all && group.helps {
        let gaps = group.entries.iter().flat_map(|entry| entry.all());
        let reasons: BTreeSet<_> = gaps.map(|missing| format!("({}: {})", missing.source, missing.reason)).collect();
        for reason in reasons {
            page.field("", 6, &reason);
        }
    }
}

/// Causes that lack the same thing.
struct Group<'a> {
    /// What would make it work, or why nothing does.
    what: String,
    /// Something would make it work.
    helps: bool,
    entries: Vec<&'a NotChecked>,
}

/// By what would make it work; what nothing would make work, by the reason.
fn groups(not_checked: &[NotChecked]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(bool, String), Vec<&NotChecked>> = BTreeMap::new();
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
