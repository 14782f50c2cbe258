//! The report for people: [`super::page`] by default, and here everything.

use super::block::{self, About, Detail, Root};
use super::layout::Page;
use super::page::length;
use super::{Format, capture, ledger_table, listeners_table, missing, namespaces, page, port, verdict};
use crate::cause::Entry;
use crate::diagnosis::Diagnosis;
use crate::observation::Input;
use crate::source::host_facts::HostFacts;
use crate::value::escape::visible;
use crate::value::words::thousands;

/// How to draw the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Columns.
    pub width: u16,
    pub colour: bool,
    /// Everything, with reasons.
    pub all: bool,
    /// Only the verdict.
    pub quiet: bool,
    /// The network namespace as it was asked for.
    pub netns: Option<String>,
    /// When it began, as the clock on the reader's wall says.
    pub local_time: Option<String>,
    /// Where what was judged comes from, if that is not what the observation itself tells.
    pub origin: Option<String>,
}

pub const FORMAT: Format = Format {
    name: "table",
    help: "For people",
    for_people: true,
    print: |diagnosis, options| Ok(table(diagnosis, options)),
    plugin: None,
};

impl Default for Options {
    fn default() -> Self {
        Self { width: 80, colour: false, all: false, quiet: false, netns: None, local_time: None, origin: None }
    }
}

impl<'a> About<'a> {
    /// `netns` as it was asked for, if it was.
    pub fn of(diagnosis: &'a Diagnosis, netns: Option<&'a str>) -> Self {
        let filtered = !diagnosis.filter.is_empty();
        if !diagnosis.namespaces.is_empty() {
            return Self { filtered, netns: None };
        }
        let elsewhere = diagnosis.input != Input::Live;
        // A container of the host's network was asked for by its name: nothing has to be entered.
        if !elsewhere && diagnosis.coverage.as_ref().is_some_and(|coverage| !coverage.narrowed) {
            return Self { filtered, netns: None };
        }
        // A name of `ip netns` leads there by itself; that of a container does not.
        let contained = diagnosis.location.as_deref().filter(|location| !location.containers.is_empty());
        let located = contained.and_then(|location| Entry::to(location, elsewhere));
        let named = diagnosis.netns_name.as_deref().map(|name| Entry::named(name, elsewhere));
        let asked = |netns| if elsewhere { Entry::named(netns, true) } else { Entry::of(netns) };
        let netns = netns.map(asked).or(named);
        Self { filtered, netns: located.or(netns) }
    }
}

/// The whole report, ending with a newline.
pub fn table(diagnosis: &Diagnosis, options: &Options) -> String {
    if options.quiet {
        return verdict::quiet(diagnosis);
    }
    if options.all { everything(diagnosis, options) } else { page::page(diagnosis, options) }
}

fn everything(diagnosis: &Diagnosis, options: &Options) -> String {
    let mut page = Page::new(options.width, options.colour);
    head(&mut page, diagnosis, options);
    first_line(&mut page, diagnosis);
    let about = About::of(diagnosis, options.netns.as_deref());
    for (index, cause) in diagnosis.causes.iter().enumerate() {
        page.gap();
        block::title(&mut page, Some(index + 1), cause);
        let root = cause.because_of.and_then(|root| {
            Some(Root { number: Some(root.place + 1), title: diagnosis.causes.get(root.place)?.title })
        });
        block::body(&mut page, cause, root, &about, &Detail::ALL);
        block::field(&mut page, "why", &format!("rstdoctor explain {}", cause.id));
    }
    for report in &diagnosis.ports {
        port::write(&mut page, report, true);
    }
    namespaces::write(&mut page, diagnosis);
    if let Some(flows) = &diagnosis.flows {
        page.gap();
        capture::write(&mut page, flows, true);
    }
    if let Some(across) = &diagnosis.across {
        page.gap();
        page.field("Other end", 11, &across.words());
    }
    if !diagnosis.totals_only && diagnosis.flows.is_none() {
        page.gap();
        if !diagnosis.filter.is_empty() {
            page.line("Of the whole host, not only what you asked for:");
        }
        ledger_table::write(&mut page, &diagnosis.ledger, diagnosis.window);
    }
    listeners_table::write(&mut page, &diagnosis.listeners, diagnosis.listeners_left_out);
    sockets(&mut page, diagnosis);
    limits(&mut page, diagnosis);
    ruled_out(&mut page, diagnosis);
    missing::write(&mut page, &diagnosis.not_checked);
    let failed = diagnosis.sources.iter().filter_map(|s| Some(format!("{}: {}", s.name, s.failure.as_ref()?)));
    of_sources(&mut page, "Sources that gave nothing, or not all", &failed.collect::<Vec<_>>());
    let noted = diagnosis.sources.iter().filter_map(|s| Some(format!("{}: {}", s.name, s.note.as_ref()?)));
    of_sources(&mut page, "Of the sources", &noted.collect::<Vec<_>>());
    page.gap();
    first_line(&mut page, diagnosis);
    page.finish()
}

/// Host, namespace, kernel, time, user.
pub(super) fn head(page: &mut Page, diagnosis: &Diagnosis, options: &Options) {
    let HostFacts { hostname, kernel, .. } = &diagnosis.host;
    let utc = super::json::rfc3339_seconds(diagnosis.started.wall).replace('T', " ");
    let netns = options.netns.as_ref().or(diagnosis.netns_name.as_ref());
    let parts = [
        hostname.clone(),
        netns.map(|name| format!("netns {name}")),
        kernel.as_ref().map(|kernel| format!("Linux {kernel}")),
        Some(length(diagnosis)),
        diagnosis.host.as_whom(),
        match &options.local_time {
            // An empty capture has no time.
            _ if diagnosis.started.wall.is_zero() => None,
            Some(local) => Some(format!("{utc} ({local})")),
            None => Some(utc),
        },
        (!diagnosis.filter.is_empty()).then(|| format!("only {}", diagnosis.filter)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    page.field("", 0, &parts.join(" · "));
    page.gap();
}

/// The verdict.
pub(super) fn first_line(page: &mut Page, diagnosis: &Diagnosis) {
    let word = verdict::status(diagnosis.status);
    let paint = verdict::paint(diagnosis.status);
    page.painted_field(word, Some(paint), word.len() + 2, &diagnosis.summary);
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

fn ruled_out(page: &mut Page, diagnosis: &Diagnosis) {
    if diagnosis.ruled_out.is_empty() {
        return;
    }
    page.gap();
    page.heading("Ruled out");
    for entry in &diagnosis.ruled_out {
        page.field("  -", 4, &format!("{}: {}", missing::title(entry.id), entry.why));
    }
}

fn of_sources(page: &mut Page, heading: &str, said: &[String]) {
    if said.is_empty() {
        return;
    }
    page.gap();
    page.heading(heading);
    said.iter().for_each(|text| page.field("  -", 4, text));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::samples;
    use super::*;
    use crate::diagnosis::node::Coverage;
    use crate::source::node::Container;

    fn at(width: u16, all: bool, diagnosis: &Diagnosis) -> String {
        table(diagnosis, &Options { width, all, ..Options::default() })
    }

    #[test]
    fn the_verdict_is_in_the_first_three_lines_and_the_command_in_the_next_ten() {
        let text = at(80, false, &samples::overflow());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].starts_with("CRITICAL  nginx on 0.0.0.0:8080 accepts more slowly"), "{text}");
        let commands = lines[3..13].join("\n");
        assert!(commands.contains("worker_processes auto;"), "{text}");
        assert!(commands.contains("reload"), "{text}");
    }

    #[test]
    fn what_belongs_to_a_namespace_says_in_which() {
        let named = Diagnosis { netns_name: Some("we'b".to_owned()), ..samples::overflow() };
        let text = at(100, true, &named);
        assert!(text.contains("web-3 · netns we'b · ") && text.contains(r"ip netns exec 'we'\''b' ss -lnt"), "{text}");
        assert!(!at(100, true, &samples::overflow()).contains("netns exec"));
    }

    #[test]
    fn a_container_with_the_network_of_the_host_is_named_and_not_entered() {
        let mut diagnosis = samples::overflow();
        let web = Container { name: Some("web".into()), ..Container::default() };
        let subjects = &mut diagnosis.causes[0].finding.subjects;
        subjects.iter_mut().for_each(|subject| subject.container = Some(Arc::new(web.clone())));
        let coverage = |narrowed| Coverage { looked: 1, known: 1, more: false, guest: false, needs: None, narrowed };
        let mut text = |narrowed| {
            diagnosis.coverage = Some(coverage(narrowed));
            let options = Options { width: 200, all: true, netns: Some("web".to_owned()), ..Options::default() };
            table(&diagnosis, &options)
        };
        let own = text(false);
        assert!(own.contains("container web, on 0.0.0.0:8080") && !own.contains("netns exec"), "{own}");
        assert!(text(true).contains("ip netns exec web"), "another one is entered");
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
        let text = at(80, true, &samples::overflow());
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
        assert!(text.contains("\nResets    of the whole host: sent 57: "), "{text}");
    }

    #[test]
    fn a_port_that_was_asked_for_has_its_own_section() {
        let text = at(80, false, &samples::one_port(8080));
        assert!(text.contains("only port 8080"), "{text}");
        assert!(text.contains("Port      8080: held by nginx (pid 4121)") && !text.contains("redis"), "{text}");
        let text = at(80, true, &samples::one_port(8080));
        assert!(text.contains("1,900 TIME_WAIT"), "{text}");
        assert!(text.contains("fails with \"Address already in use\""), "{text}");
    }
}
