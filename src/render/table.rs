//! The report for people. A tired person reads the verdict in the first three lines and what to type in the next ten.

use super::layout::{Page, Paint};
use super::{ledger_table, listeners_table, missing, port, verdict};
use crate::cause::{Change, Finding, Remedy, Restart, Severity, State, Subject};
use crate::diagnosis::filter::is_whole_host;
use crate::diagnosis::rank::Ranked;
use crate::diagnosis::{Diagnosis, Status};
use crate::source::host_facts::HostFacts;
use crate::value::escape::visible;
use crate::value::shell::ShellCommand;
use crate::value::words::{percent, seconds, thousands};

/// How to draw the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Columns.
    pub width: u16,
    pub colour: bool,
    /// Everything, with reasons.
    pub all: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 80, colour: false, all: false }
    }
}

/// Where the text after a label begins.
const INDENT: usize = 13;
/// Remedies and evidence per cause without `--all`; the first are the most important.
const REMEDIES: usize = 2;
/// Ruled-out causes that are named without `--all`.
const RULED_OUT: usize = 8;

/// The whole report, ending with a newline.
pub fn table(diagnosis: &Diagnosis, options: &Options) -> String {
    let mut page = Page::new(options.width, options.colour);
    head(&mut page, diagnosis);
    first_line(&mut page, diagnosis);
    let of = |state: State| diagnosis.causes.iter().enumerate().filter(move |(_, cause)| cause.finding.state == state);
    let now = || of(State::Active).chain(of(State::Risk));
    let in_full = |cause: &Ranked| options.all || cause.finding.severity < Severity::Info;
    // Numbers without gaps: what is shown in brief has none.
    let shown: Vec<usize> = now()
        .filter(|(_, cause)| in_full(cause))
        .chain(of(State::Past).chain(of(State::Benign)).filter(|_| options.all))
        .map(|(index, _)| index)
        .collect();
    for index in &shown {
        one_cause(&mut page, diagnosis, *index, &shown, options.all);
    }
    if !options.all {
        brief(&mut page, "Also seen, no alarm", now().map(|(_, cause)| cause).filter(|cause| !in_full(cause)));
        brief(&mut page, "Since boot, not now", of(State::Past).map(|(_, cause)| cause));
        brief(&mut page, "Harmless", of(State::Benign).map(|(_, cause)| cause));
    }
    if let Some(report) = &diagnosis.port {
        port::write(&mut page, report);
    }
    if !diagnosis.totals_only && (options.all || ledger_matters(diagnosis)) {
        page.gap();
        if !diagnosis.filter.is_empty() {
            page.line("Of the whole host, not only what you asked for:");
        }
        ledger_table::write(&mut page, &diagnosis.ledger, diagnosis.window, options.all);
    }
    listeners_table::write(&mut page, &diagnosis.listeners, diagnosis.listeners_left_out, options.all);
    if options.all {
        sockets(&mut page, diagnosis);
        limits(&mut page, diagnosis);
    }
    ruled_out(&mut page, diagnosis, options.all);
    missing::write(&mut page, &diagnosis.not_checked, options.all);
    if options.all {
        sources(&mut page, diagnosis);
    }
    page.finish()
}

fn head(page: &mut Page, diagnosis: &Diagnosis) {
    let HostFacts { hostname, kernel, uid, .. } = &diagnosis.host;
    let window = if diagnosis.totals_only { "totals since boot".to_owned() } else { seconds(diagnosis.window) };
    let parts = [
        hostname.clone(),
        diagnosis.netns_name.as_ref().map(|name| format!("netns {name}")),
        kernel.as_ref().map(|kernel| format!("Linux {kernel}")),
        Some(window),
        uid.map(|uid| if uid == 0 { "root".to_owned() } else { format!("uid {uid}") }),
        Some(super::json::rfc3339_seconds(diagnosis.started.wall).replace('T', " ")),
        (!diagnosis.filter.is_empty()).then(|| format!("only {}", diagnosis.filter)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    page.field("", 0, &parts.join(" · "));
    page.gap();
}

fn first_line(page: &mut Page, diagnosis: &Diagnosis) {
    let word = verdict::status(diagnosis.status);
    let paint = verdict::paint(diagnosis.status);
    page.painted_field(word, Some(paint), word.len() + 2, &diagnosis.summary);
}

/// The cause at `index` of the diagnosis; `shown` are those that have a number on the page.
fn one_cause(page: &mut Page, diagnosis: &Diagnosis, index: usize, shown: &[usize], all: bool) {
    let Some(cause) = diagnosis.causes.get(index) else { return };
    let number = |index| shown.iter().position(|other| *other == index).map(|place| place + 1);
    page.gap();
    title(page, number(index).unwrap_or_default(), cause);
    let root = cause
        .because_of
        .and_then(|root| Some(Root { number: number(root.place), title: diagnosis.causes.get(root.place)?.title }));
    body(page, cause, root, About::of(diagnosis), all);
    field(page, "more", &format!("rstdoctor explain {}", cause.id));
}

/// The cause that explains another one, and its number where it has one.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    pub number: Option<usize>,
    pub title: &'a str,
}

/// What the diagnosis of a cause was restricted to.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// Only one port or process was asked for.
    pub filtered: bool,
    /// Name of the network namespace, where it is not this one.
    pub netns: Option<&'a str>,
}

impl<'a> About<'a> {
    pub fn of(diagnosis: &'a Diagnosis) -> Self {
        Self { filtered: !diagnosis.filter.is_empty(), netns: diagnosis.netns_name.as_deref() }
    }
}

/// Who, what to do, and why to believe it.
pub fn body(page: &mut Page, cause: &Ranked, root: Option<Root<'_>>, about: About<'_>, all: bool) {
    let finding = &cause.finding;
    who(page, cause, about.filtered, all);
    if let Some(Root { number, title }) = root {
        let number = number.map_or_else(String::new, |number| format!("{number}, "));
        field(page, "because of", &format!("{number}{}: change that first", missing::title_of(title)));
    }
    // Under its root, a symptom needs no instructions of its own.
    let remedies = match (all, root) {
        (true, _) => finding.remedies.len(),
        (false, Some(_)) => 0,
        (false, None) => REMEDIES,
    };
    for (place, item) in finding.remedies.iter().take(remedies).enumerate() {
        remedy(page, item, about.netns, place == 0, all);
    }
    for (place, item) in finding.evidence.iter().enumerate() {
        field(page, if place == 0 { "evidence" } else { "" }, &item.text);
    }
    for (place, item) in finding.counter_evidence.iter().enumerate() {
        field(page, if place == 0 { "but" } else { "" }, &item.text);
    }
}

fn field(page: &mut Page, label: &str, text: &str) {
    page.field(&format!("   {label}"), INDENT + 1, text);
}

fn title(page: &mut Page, number: usize, cause: &Ranked) {
    let left = format!("{number}  {}", cause.title);
    let right = format!("{}   {} sure", state(&cause.finding), percent(cause.finding.confidence));
    let space = page.prose_width().saturating_sub(left.chars().count() + right.chars().count()).max(2);
    let left = page.paint(&left, Paint::Bold);
    page.line(&format!("{left}{}{right}", " ".repeat(space)));
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

/// Subjects named without `--all`.
const SUBJECTS: usize = 3;

fn who(page: &mut Page, cause: &Ranked, filtered: bool, all: bool) {
    // A process that a listener names already needs no line of its own.
    let named = |subject: &Subject| {
        let mut others = cause.finding.subjects.iter().filter(|other| other.port.is_some());
        subject.port.is_none() && subject.pid.is_some() && others.any(|other| other.pid == subject.pid)
    };
    let subjects: Vec<_> = cause.finding.subjects.iter().filter(|subject| !named(subject)).collect();
    let shown = if all { subjects.len() } else { SUBJECTS };
    for (place, subject) in subjects.iter().take(shown).enumerate() {
        // A single subject has all of it, which the evidence says already.
        let unit = (subjects.len() > 1).then_some(cause.finding.impact.unit);
        let only_asked = is_whole_host(subject) && filtered;
        let mark = if only_asked { ", so not only what you asked for" } else { "" };
        field(page, if place == 0 { "who" } else { "" }, &format!("{}{mark}", subject_text(subject, unit)));
    }
    if let Some(more) = subjects.len().checked_sub(shown).filter(|more| *more > 0) {
        field(page, "", &format!("and {more} more (--all)"));
    }
}

/// `0.0.0.0:8080, nginx, pid 4121, nginx.service, 312 connection attempts`.
fn subject_text(subject: &Subject, unit: Option<&str>) -> String {
    let place = match (subject.address, subject.port) {
        (Some(address), Some(port)) => Some(std::net::SocketAddr::new(address, port).to_string()),
        (Some(address), None) => Some(address.to_string()),
        (None, Some(port)) => Some(format!("port {port}")),
        (None, None) => None,
    };
    let place = match subject.kind {
        crate::cause::SubjectKind::Peer => place.map(|place| format!("peer {place}")),
        _ => place,
    };
    let parts = [
        place,
        subject.process.clone(),
        subject.pid.map(|pid| format!("pid {pid}")),
        subject.unit.as_ref().map(ToString::to_string),
        unit.and_then(|unit| match subject.count? {
            1 => Some("once".to_owned()),
            count => Some(format!("{} {unit}", thousands(count))),
        }),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "the whole host".to_owned() } else { parts.join(", ") }
}

fn remedy(page: &mut Page, remedy: &Remedy, netns: Option<&str>, first: bool, all: bool) {
    let indent = INDENT + 3;
    let text = match remedy.place() {
        Some(place) => format!("{}, {place}:", remedy.text),
        None => remedy.text.clone(),
    };
    field(page, if first { "fix" } else { "and" }, &text);
    if let Some(netns) = netns.filter(|_| remedy.is_per_netns()) {
        let enter = ShellCommand::new("ip netns exec").arg(netns).arg("sh");
        page.field("", INDENT + 1, &format!("in network namespace {netns} ({enter}):"));
    }
    match &remedy.change {
        Change::Advice => {}
        Change::Shell { command, .. } => page.shell(indent, command),
        Change::Setting(setting) => page.setting(indent, &setting.line),
    }
    if let Some(persist) = remedy.persist_in(netns) {
        page.field("", INDENT + 1, "and to keep it after a reboot:");
        page.shell(indent, persist);
    }
    match remedy.restart {
        Restart::None => {}
        Restart::Reload => page.field("", INDENT + 1, "takes effect after a reload of the service"),
        Restart::Service => page.field("", INDENT + 1, "takes effect after a restart of the service"),
        Restart::Host => page.field("", INDENT + 1, "takes effect after a reboot"),
    }
    if first || all {
        field(page, "verify", &remedy.verify.to_string());
    }
}

fn brief<'a>(page: &mut Page, heading: &str, causes: impl Iterator<Item = &'a Ranked>) {
    let mut causes = causes.peekable();
    if causes.peek().is_none() {
        return;
    }
    page.gap();
    page.heading(heading);
    for cause in causes {
        let sure = match cause.finding.confidence {
            sure if sure < 0.9 => format!(" ({} sure)", percent(sure)),
            _ => String::new(),
        };
        page.field("  -", 4, &format!("{}: {}{sure}", cause.title, cause.finding.summary));
    }
}

fn ledger_matters(diagnosis: &Diagnosis) -> bool {
    let ledger = &diagnosis.ledger;
    [&ledger.sent, &ledger.received, &ledger.firewall, &ledger.dropped]
        .into_iter()
        .any(|account| account.total.as_ref().is_ok_and(|total| *total > 0))
}

fn sockets(page: &mut Page, diagnosis: &Diagnosis) {
    page.gap();
    match &diagnosis.sockets {
        Some(states) if states.is_empty() => page.field("Sockets  ", 9, "none"),
        Some(states) => {
            let states: Vec<_> =
                states.iter().map(|(state, count)| format!("{} {}", thousands(*count), state.name())).collect();
            page.field("Sockets  ", 9, &states.join(", "));
        }
        None => page.field("Sockets  ", 9, "not observed"),
    }
    if let Some(orphans) = diagnosis.orphans {
        page.field("", 9, &format!("{} without a process (orphans, host-wide)", thousands(orphans)));
    }
}

fn limits(page: &mut Page, diagnosis: &Diagnosis) {
    if diagnosis.limits.is_empty() {
        return;
    }
    page.gap();
    page.heading("Limits");
    for (name, text) in &diagnosis.limits {
        let text: Vec<_> = text.split_whitespace().collect();
        page.line(&format!("  {name} = {}", visible(&text.join(" "))));
    }
}

fn ruled_out(page: &mut Page, diagnosis: &Diagnosis, all: bool) {
    if diagnosis.ruled_out.is_empty() {
        return;
    }
    page.gap();
    if all {
        page.heading("Ruled out");
        for entry in &diagnosis.ruled_out {
            page.field("  -", 4, &format!("{}: {}", missing::title(entry.id), entry.why));
        }
        return;
    }
    let healthy = diagnosis.status == Status::Ok && diagnosis.causes.is_empty();
    let count = diagnosis.ruled_out.len();
    if healthy && count > RULED_OUT {
        return page.field("Ruled out: ", 11, &format!("{count} possible causes (--all lists them)"));
    }
    let mut names: Vec<_> = diagnosis.ruled_out.iter().take(RULED_OUT).map(|entry| missing::title(entry.id)).collect();
    if count > RULED_OUT {
        names.push(format!("{} more (--all)", count - RULED_OUT));
    }
    page.field("Ruled out: ", 11, &names.join(", "));
}

fn sources(page: &mut Page, diagnosis: &Diagnosis) {
    let failed: Vec<_> = diagnosis.sources.iter().filter_map(|s| Some((s, s.failure.as_ref()?))).collect();
    if failed.is_empty() {
        return;
    }
    page.gap();
    page.heading("Sources that gave nothing, or not all");
    for (source, failure) in failed {
        page.field("  -", 4, &format!("{}: {failure}", source.name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn at(width: u16, all: bool, diagnosis: &Diagnosis) -> String {
        table(diagnosis, &Options { width, all, colour: false })
    }

    #[test]
    fn the_verdict_is_in_the_first_three_lines_and_the_command_in_the_next_ten() {
        let text = at(80, false, &samples::overflow());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].starts_with("CRITICAL  nginx on 0.0.0.0:8080 accepts more slowly"), "{text}");
        let commands = lines[3..13].join("\n");
        assert!(
            commands.contains("in nginx.conf, server block:\n                listen 8080 backlog=4096;\n"),
            "{text}"
        );
        assert!(commands.contains("reload"), "{text}");
    }

    #[test]
    fn what_belongs_to_a_namespace_says_in_which() {
        let named = Diagnosis { netns_name: Some("we'b".to_owned()), ..samples::overflow() };
        let text = at(100, true, &named);
        assert!(text.contains(r"in network namespace we'b (ip netns exec 'we'\''b' sh):"), "{text}");
        assert!(!at(100, true, &samples::overflow()).contains("netns exec"));
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        for width in [60, 80, 100, 140, 200] {
            for all in [false, true] {
                for diagnosis in [samples::overflow(), samples::healthy(), samples::blind(), samples::one_port(8080)] {
                    let text = at(width, all, &diagnosis);
                    for line in text.lines() {
                        let columns = unicode_width::UnicodeWidthStr::width(line);
                        assert!(columns <= usize::from(width), "{columns} columns at {width}: {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_ledger_shows_its_remainder() {
        let text = at(80, false, &samples::overflow());
        let row = text.lines().find(|line| line.contains("unexplained")).expect("remainder");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["unexplained", "12", "4.0"]);
    }

    #[test]
    fn a_healthy_host_gets_a_short_report() {
        let text = at(80, false, &samples::healthy());
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("OK  ")), "{text}");
        assert!(text.lines().count() <= 14, "{text}");
    }

    #[test]
    fn what_was_not_observed_is_no_zero() {
        let text = at(80, true, &samples::blind());
        assert!(text.contains("UNKNOWN"), "{text}");
        assert!(text.contains("Could not check"), "{text}");
        let sent = text.lines().find(|line| line.starts_with("sent")).expect("ledger");
        assert!(sent.contains('?') && !sent.contains(" 0 "), "{sent}");
    }

    #[test]
    fn colour_carries_no_meaning_and_is_only_there_when_asked_for() {
        let plain = at(80, false, &samples::overflow());
        assert!(!plain.contains('\x1b'));
        let options = Options { colour: true, ..Options::default() };
        let coloured = table(&samples::overflow(), &options);
        assert!(coloured.contains("\x1b[1;31mCRITICAL\x1b[0m"));
        let codes = ["\x1b[1;31m", "\x1b[1m", "\x1b[0m"];
        assert_eq!(codes.iter().fold(coloured, |text, code| text.replace(code, "")), plain);
    }

    #[test]
    fn a_process_name_cannot_reach_the_terminal_raw() {
        let hostile = "\x1b]0;owned\x07\u{202e}x";
        let text = at(80, true, &samples::overflow_by(hostile));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
        assert!(text.contains("\\x1b]0;owned\\x07\\u{202e}x"), "{text}");
    }

    /// The whole host's ledger and a verdict about one port do not contradict each other.
    #[test]
    fn what_is_wrong_elsewhere_is_named_and_no_alarm() {
        let diagnosis = samples::one_port(6379);
        let summary = &diagnosis.summary;
        assert!(summary.starts_with("12 of 57 RSTs that this host sent are unexplained"), "{summary}");
        assert!(summary.contains("Elsewhere on this host: accept-queue-overflow"), "{summary}");
        let text = at(80, false, &diagnosis);
        assert!(text.contains("\nOf the whole host, not only what you asked for:\nResets"), "{text}");
    }

    #[test]
    fn a_port_that_was_asked_for_has_its_own_section() {
        let text = at(80, false, &samples::one_port(8080));
        assert!(text.contains("only port 8080"), "{text}");
        assert!(text.contains("1,900 TIME_WAIT"), "{text}");
        assert!(text.contains("fails with \"Address already in use\""), "{text}");
        assert!(!text.contains("redis"), "{text}");
    }
}
