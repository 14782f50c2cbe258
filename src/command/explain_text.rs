//! The explanation of one error text or counter that a person typed.

use crate::cause::{self, Cause};
use crate::knowledge::error_texts::{self, ErrorText};
use crate::knowledge::log::fields::{self, Fields};
use crate::render::layout::Page;

/// Causes that are named with their reason; the rest by their ids.
const CAUSES: usize = 7;
/// Of those the most that are named.
const NAMED: usize = 6;

/// Of a text that leads to no cause.
pub const NO_CAUSE: &str = "None of rstdoctor's causes: nothing was refused, lost or reset by it.";

/// What the error text means; the page fits one screen. False if it is not known.
pub fn text(page: &mut Page, words: &str) -> bool {
    let known = error_texts::meant(words);
    let Some(best) = known.first() else { return false };
    page.heading(&best.name);
    page.field("", 0, &best.meaning);
    page.gap();
    causes(page, best);
    advice(page, best, &fields::read(words.as_bytes()));
    let also: Vec<_> = known.iter().skip(1).map(|other| other.name.as_str()).collect();
    if !also.is_empty() {
        page.gap();
        page.field("Also in these words: ", 2, &also.join("; "));
    }
    true
}

fn causes(page: &mut Page, text: &ErrorText) {
    let causes: Vec<(&'static Cause, &str)> =
        text.causes.iter().filter_map(|it| Some((cause::by_id(&it.id)?, it.why.as_str()))).collect();
    if causes.is_empty() {
        page.field("", 0, NO_CAUSE);
    } else {
        page.heading(if text.certain { "Cause" } else { "Causes, the likeliest first" });
        ranked(page, causes.iter().take(CAUSES).map(|(cause, why)| (*cause, *why)));
        rest(page, causes.iter().skip(CAUSES).map(|(cause, _)| *cause));
    }
    page.gap();
}

/// One line for each cause, with the reason for its place.
pub fn ranked<'a>(page: &mut Page, causes: impl Iterator<Item = (&'static Cause, &'a str)>) {
    const ID: usize = 29;
    for (cause, why) in causes {
        page.field(&format!("  {}", cause.id), ID, why);
    }
}

/// The causes that have no line of their own: what is cut is said.
pub fn rest(page: &mut Page, causes: impl Iterator<Item = &'static Cause>) {
    let ids: Vec<_> = causes.map(|cause| cause.id).collect();
    let more = ids.len().saturating_sub(NAMED);
    let named = ids.get(..NAMED.min(ids.len())).unwrap_or_default().join(", ");
    if more > 0 {
        page.field("", 2, &format!("less likely: {named} and {more} more"));
    } else if !ids.is_empty() {
        page.field("", 2, &format!("less likely: {named}"));
    }
}

/// Commands that tell the causes apart and what to change, for the ends that the line names.
pub fn advice(page: &mut Page, text: &ErrorText, found: &Fields) {
    page.heading("Tell them apart");
    for command in &text.tell_apart {
        page.example(2, &filled(command, found));
    }
    page.heading("Change");
    page.field("", 2, &text.change);
}

/// The command with HOST and PORT as the line has them, where they can stand in a command as they are.
fn filled(command: &str, found: &Fields) -> String {
    let Some(server) = &found.server else { return command.to_owned() };
    let mut command = command.to_owned();
    if let Some(port) = server.port {
        command = command.replace("PORT", &port.to_string());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
    if !server.host.is_empty()
        && !server.host.starts_with('-')
        && !server.host.starts_with("unix:")
        && server.host.chars().all(plain)
    {
        command = command.replace("HOST", &server.host);
    }
    command
}
