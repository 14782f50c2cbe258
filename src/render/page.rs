//! The report that fits a terminal: the verdict, each root cause with its remedy, its symptoms in a line each, and what else
//! there is in a line each. Everything else is in `table`.

use super::block::{self, About, Detail};
use super::layout::{Page, shorten};
use super::table::{Options, first_line, head};
use super::{capture, missing, namespaces, port, verdict};
use crate::cause::{Finding, Severity, State};
use crate::diagnosis::rank::Ranked;
use crate::diagnosis::{CONVINCING, Diagnosis, NotChecked, Status};
use crate::evidence::ledger::{Account, Basis};
use crate::observation::Input;
use crate::value::words::{counted, percent, seconds, thousands};

/// Rows of the screen that a report about one fault fits into, with the prompt below it.
const SCREEN: usize = 23;
/// Where the text of the lines below the causes begins.
const INDENT: usize = 10;
/// Lines of one kind below the causes, and symptoms below their root.
const MOST: usize = 3;

/// From much to little: the first with which the report fits the screen is taken.
const DETAILS: [Detail; 7] = [
    Detail { remedies: 2, next_remedy: false, persist: true, lines: Some(7), whole_notes: true },
    Detail { remedies: 1, next_remedy: true, persist: true, lines: Some(7), whole_notes: true },
    Detail { remedies: 1, next_remedy: true, persist: true, lines: Some(4), whole_notes: true },
    Detail { remedies: 1, next_remedy: false, persist: true, lines: Some(4), whole_notes: true },
    Detail { remedies: 1, next_remedy: true, persist: false, lines: Some(3), whole_notes: false },
    Detail { remedies: 1, next_remedy: false, persist: false, lines: Some(2), whole_notes: false },
    Detail { remedies: 1, next_remedy: false, persist: false, lines: Some(1), whole_notes: false },
];
/// Of a report that has to be scrolled anyway.
const LONG: Detail = Detail { remedies: 1, next_remedy: true, persist: false, lines: Some(4), whole_notes: false };

/// The report, ending with a newline.
pub fn page(diagnosis: &Diagnosis, options: &Options) -> String {
    let fits = |text: &String| text.lines().count() <= SCREEN;
    DETAILS
        .iter()
        .map(|detail| drawn(diagnosis, options, detail, false))
        .find(fits)
        .unwrap_or_else(|| drawn(diagnosis, options, &LONG, true))
}

/// `repeated`: the verdict stands at the end as well.
fn drawn(diagnosis: &Diagnosis, options: &Options, detail: &Detail, repeated: bool) -> String {
    let mut page = Page::new(options.width, options.colour);
    let about = About::of(diagnosis, options.netns.as_deref());
    head(&mut page, diagnosis, options);
    first_line(&mut page, diagnosis);
    let roots = roots(diagnosis);
    for (place, root) in roots.iter().enumerate() {
        page.gap();
        let number = (roots.len() > 1).then_some(place + 1);
        cause(&mut page, diagnosis, *root, number, &about, detail);
    }
    page.gap();
    others(&mut page, diagnosis, &roots, &about, detail);
    for report in &diagnosis.ports {
        match detail.whole_notes {
            true => {
                port::write(&mut page, report, false);
                page.gap();
            }
            false => page.field("Port", INDENT, &port::brief(report)),
        }
    }
    match &diagnosis.flows {
        Some(flows) => capture::write(&mut page, flows, false),
        None if diagnosis.totals_only => {}
        None => resets(&mut page, diagnosis),
    }
    if let Some(across) = &diagnosis.across {
        page.field("Other end", INDENT, &across.words());
    }
    if let Some(rest) = namespaces::rest(diagnosis) {
        page.field("Fine", INDENT, &rest);
    }
    if let Some(gone) = namespaces::gone(diagnosis) {
        page.field("Gone", INDENT, &gone);
    }
    looked(&mut page, diagnosis, detail);
    if repeated {
        let word = verdict::status(diagnosis.status);
        let text = shorten(&verdict::one_line(diagnosis), page.prose_width() - word.len() - 2);
        page.gap();
        page.painted_field(word, Some(verdict::paint(diagnosis.status)), word.len() + 2, &text);
    }
    page.finish()
}

fn cause(
    page: &mut Page,
    diagnosis: &Diagnosis,
    root: usize,
    number: Option<usize>,
    about: &About<'_>,
    detail: &Detail,
) {
    let Some(cause) = diagnosis.causes.get(root) else { return };
    block::title(page, number, cause);
    block::body(page, cause, None, about, detail);
    let symptoms: Vec<_> = symptoms(diagnosis, root).collect();
    let room = page.prose_width() - block::INDENT;
    let whole = |text: &str| if detail.whole_notes { text.to_owned() } else { shorten(text, room) };
    for (place, symptom) in symptoms.iter().take(MOST).enumerate() {
        let more = symptoms.len().saturating_sub(MOST);
        let text = match more {
            more if more > 0 && place + 1 == MOST => format!("{} more of its symptoms (--all)", more + 1),
            _ if symptom.finding.location == cause.finding.location => whole(&symptom.finding.summary),
            _ => whole(&located(diagnosis, &symptom.finding)),
        };
        block::field(page, if place == 0 { "also" } else { "" }, &text);
    }
    block::field(page, "why", &format!("rstdoctor explain {}", cause.id));
}

/// The place of the deepest cause that explains the one at `index`, or its own.
fn root_of(diagnosis: &Diagnosis, index: usize) -> usize {
    let deeper = |index: &usize| diagnosis.causes.get(*index)?.because_of.map(|root| root.place);
    // No chain is longer than the list.
    std::iter::successors(Some(index), deeper).take(diagnosis.causes.len() + 1).last().unwrap_or(index)
}

/// What is shown in full: the roots of all that is more than a note now. A hint is a note where the verdict stands without it.
fn roots(diagnosis: &Diagnosis) -> Vec<usize> {
    let alarms = diagnosis.causes.iter().enumerate();
    let hints = diagnosis.status == Status::Unknown;
    let alarms = alarms.filter(|(_, cause)| {
        let finding = &cause.finding;
        cause.finding.state.is_now() && finding.severity < Severity::Info && (hints || finding.confidence >= CONVINCING)
    });
    let mut roots: Vec<usize> = Vec::new();
    for root in alarms.map(|(index, _)| root_of(diagnosis, index)) {
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}

/// What follows from the cause at `root`.
fn symptoms(diagnosis: &Diagnosis, root: usize) -> impl Iterator<Item = &Ranked> {
    let causes = diagnosis.causes.iter().enumerate();
    causes.filter(move |(index, _)| *index != root && root_of(diagnosis, *index) == root).map(|(_, cause)| cause)
}

/// Notes, what was before, and what is harmless.
fn others(page: &mut Page, diagnosis: &Diagnosis, roots: &[usize], about: &About<'_>, detail: &Detail) {
    let causes =
        || diagnosis.causes.iter().enumerate().filter(|(index, _)| !roots.contains(&root_of(diagnosis, *index)));
    let of = |keep: &dyn Fn(&Ranked) -> bool| -> Vec<&Ranked> {
        causes().map(|(_, cause)| cause).filter(|cause| keep(cause)).collect()
    };
    let notes = of(&|cause| cause.finding.state.is_now());
    lines(page, diagnosis, "Noted", detail, &notes);
    // Where nothing else is to be done, the first of them is what somebody may want to mend.
    if let Some(note) = notes.first().filter(|_| roots.is_empty() && detail.whole_notes) {
        block::fix(page, note, about, detail);
    }
    lines(page, diagnosis, "Earlier", detail, &of(&|cause| cause.finding.state == State::Past));
    // What a text speaks for is not shown in full, and what to change is what is asked for.
    let hinted = diagnosis.status == Status::Unknown && diagnosis.input == Input::Text;
    if let Some(cause) = causes().map(|(_, cause)| cause).find(|cause| hinted && cause.finding.state == State::Past) {
        let remedy = &cause.finding.remedies;
        remedy.first().into_iter().for_each(|remedy| page.field("Fix", INDENT, &remedy.text));
        page.field("", INDENT, &format!("rstdoctor explain {} tells how to see whether it is this", cause.id));
    }
    lines(page, diagnosis, "Harmless", detail, &of(&|cause| cause.finding.state == State::Benign));
}

fn lines(page: &mut Page, diagnosis: &Diagnosis, label: &str, detail: &Detail, causes: &[&Ranked]) {
    let room = page.prose_width() - INDENT;
    for (place, cause) in causes.iter().take(MOST).enumerate() {
        let sure = match cause.finding.confidence {
            sure if sure < 0.9 => format!(" ({} sure)", percent(sure)),
            _ => String::new(),
        };
        let text = match causes.len().saturating_sub(MOST) {
            more if more > 0 && place + 1 == MOST => format!("{} more (--all)", more + 1),
            _ if detail.whole_notes => format!("{}{sure}", located(diagnosis, &cause.finding)),
            _ => format!("{}{sure}", shorten(&located(diagnosis, &cause.finding), room.saturating_sub(sure.len()))),
        };
        page.field(if place == 0 { label } else { "" }, INDENT, &text);
    }
}

/// The summary; of a whole node with where it is.
fn located(diagnosis: &Diagnosis, finding: &Finding) -> String {
    if diagnosis.namespaces.is_empty() { finding.summary.clone() } else { block::located(finding) }
}

/// The ledger in a sentence: what was sent and received, what of it is explained, and what was lost.
fn resets(page: &mut Page, diagnosis: &Diagnosis) {
    let ledger = &diagnosis.ledger;
    let sides = [
        ("sent", &ledger.sent),
        ("received", &ledger.received),
        ("firewall", &ledger.firewall),
        ("lost", &ledger.dropped),
    ];
    let told: Vec<_> = sides
        .iter()
        .filter_map(|(name, account)| match &account.total {
            // Most hosts reject by no rule.
            Ok(0) if account.explained() == 0 && *name == "firewall" => None,
            Ok(total) => Some(side(name, *total, account)),
            Err(_) => Some(format!("{name} not observed")),
        })
        .collect();
    let whole = if diagnosis.filter.is_empty() { "" } else { "of the whole host: " };
    let text = told.join(" · ");
    page.field("Resets", INDENT, &format!("{whole}{text}"));
}

/// `sent 41: turned away 41, unexplained 0`, the largest first.
fn side(name: &str, total: u64, account: &Account) -> String {
    const REASONS: usize = 3;
    // One reason may be known in two ways.
    let mut lines: Vec<(&str, u64)> = Vec::new();
    for line in &account.lines {
        match lines.iter_mut().find(|(label, _)| *label == line.label) {
            Some((_, count)) => *count += line.count,
            None => lines.push((&line.label, line.count)),
        }
    }
    lines.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = lines.iter().skip(REASONS).map(|(_, count)| count).sum::<u64>();
    let mut parts: Vec<_> =
        lines.iter().take(REASONS).map(|(label, count)| format!("{label} {}", thousands(*count))).collect();
    if rest > 0 {
        parts.push(format!("for other reasons {}", thousands(rest)));
    }
    if let Some(unexplained) = account.unexplained().filter(|rest| *rest > 0) {
        parts.push(format!("unexplained {}", thousands(unexplained)));
    }
    // Events and counter are read a moment apart: the larger of the two was there.
    let total = total.max(account.explained());
    let about = if account.basis == Basis::Inferred && total > 0 { "about " } else { "" };
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{name} {about}{}{parts}", thousands(total))
}

/// How long it was looked at, or at what instead.
pub(super) fn length(diagnosis: &Diagnosis) -> String {
    match diagnosis.totals_only {
        // A log has no totals, and its lines have times of their own.
        true if diagnosis.input == Input::Text && diagnosis.counters.is_empty() => "a text".to_owned(),
        true => "totals since boot".to_owned(),
        false => seconds(diagnosis.window),
    }
}

/// What could not be looked at and what would help, and how much was ruled out.
fn looked(page: &mut Page, diagnosis: &Diagnosis, detail: &Detail) {
    let helped: Vec<&NotChecked> = diagnosis.not_checked.iter().filter(|entry| entry.needs().is_some()).collect();
    let room = page.prose_width() - INDENT;
    for (place, group) in missing::by_need(&helped).iter().take(MOST).enumerate() {
        let text = if detail.whole_notes { group.clone() } else { shorten(group, room) };
        page.field(if place == 0 { "Unseen" } else { "" }, INDENT, &text);
    }
    let as_whom = diagnosis.host.as_whom().map(|whom| format!(", as {whom}")).unwrap_or_default();
    let time = match length(diagnosis) {
        length if diagnosis.totals_only => format!("at {length}"),
        length => length,
    };
    let ruled_out = counted(diagnosis.ruled_out.len() as u64, "cause");
    let unchecked = match diagnosis.not_checked.len() as u64 {
        0 => String::new(),
        count => format!(", {} not checked", thousands(count)),
    };
    let node = namespaces::share(diagnosis).map(|share| format!(", {share}")).unwrap_or_default();
    page.field("Looked", INDENT, &format!("{time}{node}{as_whom}; {ruled_out} ruled out{unchecked} (--all)"));
    if let Some(more) = namespaces::needs(diagnosis) {
        page.field("", INDENT, &more);
    }
}
