//! One cause on a page: who, what to change, how to see that it worked, and why to believe it.

use std::net::SocketAddr;

use super::layout::{Page, Paint, shorten, wrap};
use super::missing;
use crate::cause::{Change, Entry, EvidenceItem, Finding, Remedy, Restart, Severity, State, Subject, SubjectKind};
use crate::diagnosis::filter::is_whole_host;
use crate::diagnosis::rank::Ranked;
use crate::source::node::Location;
use crate::value::outside::UnitName;
use crate::value::words::{percent, thousands};

/// What the least share is shown as at most where the greatest is all: rounding makes no certainty.
const SHORT_OF_ALL: f64 = 0.99;

/// Where the text after a label begins.
pub const INDENT: usize = 11;

/// How much of a cause is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// Remedies with what to type or to write; of the next one only what it is.
    pub remedies: usize,
    pub next_remedy: bool,
    /// Also what keeps a change after a reboot.
    pub persist: bool,
    /// Lines of each list: who, evidence, what speaks against it; `None` for all.
    pub lines: Option<usize>,
    /// Notes are whole, and not cut to a line each.
    pub whole_notes: bool,
}

impl Detail {
    pub const ALL: Self =
        Self { remedies: usize::MAX, next_remedy: false, persist: true, lines: None, whole_notes: true };
}

/// The cause that explains another one, and its number where it has one.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    pub number: Option<usize>,
    pub title: &'a str,
}

/// What the diagnosis of a cause was restricted to.
#[derive(Debug, Clone, Default)]
pub struct About<'a> {
    /// Only one port or process was asked for.
    pub filtered: bool,
    /// The network namespace, where only one was looked at and it is not this one.
    pub netns: Option<Entry<'a>>,
}

impl About<'_> {
    /// The way to where the finding is, if that is elsewhere.
    fn entry<'b>(&'b self, finding: &'b Finding) -> Option<Entry<'b>> {
        self.netns.clone().or_else(|| Entry::to(finding.location.as_deref()?, finding.elsewhere))
    }
}

/// Title, state and confidence on one line.
pub fn title(page: &mut Page, number: Option<usize>, cause: &Ranked) {
    let number = number.map_or_else(String::new, |number| format!("{number}  "));
    let left = format!("{number}{}", cause.title);
    let right = format!("{}, {} sure", state(&cause.finding), percent(cause.finding.confidence));
    let space = page.prose_width().saturating_sub(left.chars().count() + right.chars().count()).max(2);
    let left = page.paint(&left, Paint::Bold);
    page.line(&format!("{left}{}{right}", " ".repeat(space)));
}

/// `57 % to 79 %`, `92 % or more`.
fn range(low: f64, high: f64) -> String {
    match percent(high) {
        all if all == percent(1.0) => format!("{} or more", percent(low.min(SHORT_OF_ALL))),
        high => format!("{} to {high}", percent(low)),
    }
}

/// `all 10 connections failed; 72 % or more with 95 % certainty`, where that was counted.
pub fn harm(finding: &Finding) -> Option<String> {
    let harm = finding.harm?;
    let [low, high] = harm.interval()?;
    let noun = if finding.impact.unit.ends_with("connects") { "connect" } else { "connection" };
    Some(format!("{} failed; {} with 95 % certainty", harm.counted(noun), range(low, high)))
}

/// Who, what to do, and why to believe it.
pub fn body(page: &mut Page, cause: &Ranked, root: Option<Root<'_>>, about: &About<'_>, detail: &Detail) {
    let finding = &cause.finding;
    let entry = about.entry(finding);
    if let Some(location) = finding.location.as_deref().filter(|_| about.netns.is_none()) {
        field(page, "where", &whereabouts(location));
    }
    match detail.lines {
        Some(_) => list(page, "who", &[who(cause, about.filtered).join("; ")], Some(2)),
        None => list(page, "who", &who(cause, about.filtered), None),
    }
    if let Some(text) = harm(finding) {
        field(page, "harm", &text);
    }
    if let Some(Root { number, title }) = root {
        let number = number.map_or_else(String::new, |number| format!("{number}, "));
        field(page, "follows", &format!("from {number}{}", missing::title_of(title)));
    }
    for (place, item) in finding.remedies.iter().take(detail.remedies).enumerate() {
        remedy(page, finding, item, entry.as_ref(), place == 0, detail);
    }
    if let Some(next) = finding.remedies.get(detail.remedies).filter(|_| detail.next_remedy) {
        let text = shorten(&next.text, page.prose_width() - INDENT - MORE.len());
        field(page, "and", &format!("{text}{MORE}"));
    }
    // The share has a line of its own.
    let own_line = |item: &&EvidenceItem| item.metric != "share" || finding.harm.is_none();
    let texts =
        |items: &[EvidenceItem]| items.iter().filter(own_line).map(|item| item.text.clone()).collect::<Vec<_>>();
    list(page, "because", &texts(&finding.evidence), detail.lines);
    let against = texts(&finding.counter_evidence);
    let (shown, lines) = match detail.lines {
        None => (against.len(), None),
        Some(1) => (0, None),
        Some(lines) => (1, Some(if lines > MOST_ITEMS { 2 } else { 1 })),
    };
    list(page, "but", against.get(..shown).unwrap_or(&against), lines);
}

/// Of a note only what to change first, and where more is told.
pub fn fix(page: &mut Page, cause: &Ranked, about: &About<'_>, detail: &Detail) {
    let finding = &cause.finding;
    let entry = about.entry(finding);
    if let Some(first) = finding.remedies.first() {
        remedy(page, finding, first, entry.as_ref(), true, detail);
        field(page, "why", &format!("rstdoctor explain {}", cause.id));
    }
}

/// Texts of one list, where not all are asked for.
const MOST_ITEMS: usize = 3;
/// Where the rest is.
const MORE: &str = " (--all)";

/// Text after a label of a cause.
pub fn field(page: &mut Page, label: &str, text: &str) {
    page.field(&format!("  {label}"), INDENT, text);
}

/// The texts below each other behind one label. With a limit they share that many lines: each gets one before one gets two,
/// and what does not fit is cut with a mark.
fn list(page: &mut Page, label: &str, texts: &[String], most: Option<usize>) {
    let width = page.prose_width() - INDENT;
    let shown = texts.len().min(most.map_or(usize::MAX, |most| most.min(MOST_ITEMS)));
    let mut spare = most.map_or(usize::MAX, |most| most - shown);
    for (place, text) in texts.iter().take(shown).enumerate() {
        let mut lines = wrap(text, width);
        let label = if place == 0 { label } else { "" };
        if lines.len() - 1 > spare {
            let rest = lines.split_off(spare).join(" ");
            lines.push(shorten(&rest, width));
        }
        spare -= lines.len() - 1;
        field(page, label, &lines.join(" "));
    }
}

fn state(finding: &Finding) -> &'static str {
    match (finding.state, finding.severity) {
        (State::Active, Severity::Info) => "active, minor",
        (State::Active, _) => "active",
        (State::Past, _) => "past",
        (State::Risk, _) => "risk",
        (State::Benign, _) => "harmless",
    }
}

fn who(cause: &Ranked, filtered: bool) -> Vec<String> {
    let subjects = &cause.finding.subjects;
    // A process that a listener names already needs no line of its own, nor the peer that a process is said to be connected to.
    let named = |subject: &Subject| {
        let at_place = |other: &&Subject| other.port.is_some() && other.pid.is_some();
        let mut others = subjects.iter().filter(at_place);
        match subject.kind {
            SubjectKind::Peer => others.any(|other| {
                other.kind == SubjectKind::Process && (other.address, other.port) == (subject.address, subject.port)
            }),
            _ => subject.port.is_none() && subject.pid.is_some() && others.any(|other| other.pid == subject.pid),
        }
    };
    // Who has all of it needs no number: the verdict says it.
    let all = cause.finding.impact.events;
    subjects
        .iter()
        .filter(|subject| !named(subject))
        .map(|subject| {
            let only_asked = is_whole_host(subject) && filtered;
            let mark = if only_asked { ", so not only what you asked for" } else { "" };
            let unit = subject.count.filter(|count| *count != all).map(|_| cause.finding.impact.unit);
            format!("{}{mark}", subject_text(subject, unit))
        })
        .collect()
}

/// `nginx, pid 4121, nginx.service, on 0.0.0.0:8080, 312 connection attempts`.
fn subject_text(subject: &Subject, unit: Option<&str>) -> String {
    let place = match (subject.address, subject.port) {
        (Some(address), Some(port)) => Some(SocketAddr::new(address, port).to_string()),
        (Some(address), None) => Some(address.to_string()),
        (None, Some(port)) => Some(format!("port {port}")),
        (None, None) => None,
    };
    let place = place.map(|place| match subject.kind {
        SubjectKind::Peer => format!("peer {place}"),
        SubjectKind::Process if subject.address.is_some() => format!("connected to {place}"),
        _ if subject.process.is_some() => format!("on {place}"),
        _ => place,
    });
    let parts = [
        subject.process.clone(),
        subject.pid.map(|pid| format!("pid {pid}")),
        unit_of(subject).map(ToString::to_string),
        // Elsewhere the place says it.
        subject.container.as_ref().filter(|_| subject.location.is_none()).map(|of| format!("container {}", of.label())),
        place,
        unit.and_then(|unit| match subject.count? {
            1 => Some("once".to_owned()),
            count => Some(format!("{} {unit}", thousands(count))),
        }),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "the whole host".to_owned() } else { parts.join(", ") }
}

/// The summary, with where it is if that is elsewhere.
pub fn located(finding: &Finding) -> String {
    match &finding.location {
        Some(location) if !finding.tells_place => format!("in {location}: {}", finding.summary),
        _ => finding.summary.clone(),
    }
}

/// `container web, image nginx:1.25, podman`.
pub fn whereabouts(location: &Location) -> String {
    let mut parts = vec![location.to_string()];
    if let Some(container) = location.container() {
        if location.pod().is_some() {
            parts.push(format!("container {}", container.label()));
        }
        parts.extend(container.image.as_ref().map(|image| format!("image {image}")));
        if let (Some(project), Some(service)) = (&container.project, &container.service) {
            parts.push(format!("service {service} of {project}"));
        }
        parts.extend(container.runtime.clone());
    }
    parts.join(", ")
}

/// What is restarted or reloaded for a remedy: the unit, or the process.
fn owner(finding: &Finding) -> Option<String> {
    let unit = finding.subjects.iter().find_map(|subject| unit_of(subject).map(ToString::to_string));
    unit.or_else(|| finding.subjects.iter().find_map(|subject| subject.process.clone()))
}

/// The scope that a container's runtime makes for it has a name that only systemd knows it by.
fn unit_of(subject: &Subject) -> Option<&UnitName> {
    subject.unit.as_ref().filter(|unit| unit.is_service() || subject.container.is_none())
}

/// When a change takes effect.
pub fn takes_effect(finding: &Finding, remedy: &Remedy, entry: Option<&Entry<'_>>) -> Option<String> {
    // Advice says itself what has to be done.
    if matches!(remedy.change, Change::Advice) && entry.is_none() {
        return None;
    }
    let owner = owner(finding).unwrap_or_else(|| "the service".to_owned());
    // In a container that shares the network of the one who looks, too.
    let container = || finding.subjects.iter().find_map(|subject| subject.container.as_deref());
    let entry =
        entry.cloned().or_else(|| container().map(|container| Entry::of_container(container, finding.elsewhere)));
    if let Some(text) = entry.and_then(|entry| entry.takes_effect(remedy.restart, &owner)) {
        return Some(text);
    }
    match (&remedy.change, remedy.restart) {
        (Change::Advice, _) | (_, Restart::None) => None,
        (_, Restart::Reload) => Some(format!("takes effect when {owner} is reloaded")),
        (_, Restart::Service) => Some(format!("takes effect when {owner} is restarted")),
        (_, Restart::Host) => Some("takes effect after a reboot".to_owned()),
    }
}

fn remedy(
    page: &mut Page,
    finding: &Finding,
    remedy: &Remedy,
    netns: Option<&Entry<'_>>,
    first: bool,
    detail: &Detail,
) {
    let indent = INDENT + 2;
    let told = netns.map_or_else(|| remedy.text.as_str().into(), |entry| entry.text(remedy));
    let text = match (remedy.place(), netns.and_then(|entry| entry.file_of(remedy))) {
        (Some(place), Some(of)) => format!("{told}, {place}, {of}:"),
        (Some(place), None) => format!("{told}, {place}:"),
        (None, _) => told.into_owned(),
    };
    field(page, if first { "fix" } else { "and" }, &text);
    match &remedy.change {
        Change::Advice => {}
        Change::Shell { command, .. } => match netns {
            Some(netns) => page.shell(indent, &netns.within(command)),
            None => page.shell(indent, command),
        },
        Change::Setting(setting) => page.setting(indent, &setting.line),
    }
    match remedy.persist_in(netns.is_some()) {
        Some(persist) if detail.persist => {
            field(page, "", "and to keep it after a reboot:");
            page.shell(indent, persist);
        }
        Some(_) => field(page, "", "and to keep it after a reboot: see --all"),
        None => {
            let kept = match (&remedy.change, netns) {
                (Change::Shell { command, .. }, Some(netns)) => netns.keeps(command),
                _ => None,
            };
            if let Some(kept) = kept {
                field(page, "", &format!("and to keep it, {kept}"));
            }
        }
    }
    if let Some(text) = takes_effect(finding, remedy, netns) {
        field(page, "", &text);
    }
    if first || detail.lines.is_none() {
        let verify = netns.map_or_else(|| remedy.verify.clone(), |entry| entry.verify(remedy));
        field(page, "verify", &verify.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn no_share_is_said_to_be_at_most_all() {
        assert_eq!(range(0.92, 1.0), "92 % or more");
        assert_eq!(range(0.9199, 0.999_999), "92 % or more");
        assert_eq!(range(0.9996, 1.0), "99 % or more", "what is not all is not rounded to it");
        assert_eq!(range(0.571, 0.788), "57 % to 79 %");
        assert_eq!(range(0.97, 0.994), "97 % to 99 %");
    }
}
