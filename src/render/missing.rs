//! What could not be checked, grouped by what is missing, so that one privilege is asked for once.

use std::collections::BTreeMap;

use super::layout::{Page, Paint};
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
    for (what, group) in groups(not_checked) {
        let mut titles: Vec<String> = group.iter().map(|entry| title(entry.id)).collect();
        let over = titles.len().saturating_sub(CAP);
        if !all && over > 1 {
            titles.truncate(CAP);
            titles.push(format!("{over} more (--all)"));
        }
        page.field("  ", 2, &format!("{}: {what}", titles.join(", ")));
        if all {
            let mut reasons: Vec<_> =
                group.iter().map(|entry| format!("{}: {}", entry.missing.source, entry.missing.reason)).collect();
            reasons.dedup();
            for reason in reasons {
                page.painted_field("    -", Some(Paint::Dim), 6, &reason);
            }
        }
    }
}

/// By what would make it work; what nothing would make work, by the reason.
fn groups(not_checked: &[NotChecked]) -> Vec<(String, Vec<&NotChecked>)> {
    let mut groups: BTreeMap<(bool, &str), Vec<&NotChecked>> = BTreeMap::new();
    for entry in not_checked {
        let key = match &entry.missing.needs {
            Some(needs) => (false, needs.as_str()),
            None => (true, entry.missing.reason.as_str()),
        };
        groups.entry(key).or_default().push(entry);
    }
    groups
        .into_iter()
        .map(|((hopeless, what), group)| {
            let what = if hopeless { what.to_owned() } else { format!("needs {what}") };
            (what, group)
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
