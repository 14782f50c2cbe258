//! What a document tells of one diagnosis, made of what programs read of it.

use super::safe;
use crate::cause::Finding;
use crate::diagnosis::Diagnosis;
use crate::evidence::ledger::words;
use crate::observation::Input;
use crate::render::json::wire::report::{
    ByReason, Cause, Evidence, Listener, Remedy, Severity, State, Subject, VerdictStatus,
};
use crate::render::json::{self, Report};
use crate::render::missing::{self, Missed};
use crate::render::{Options, block, namespaces, page};
use crate::value::words::{amount, percent, rate, thousands};

/// Listeners that are shown.
const MOST_LISTENERS: usize = 50;

/// What a document tells of a diagnosis.
pub struct ScanView {
    pub host: Option<String>,
    pub head: String,
    pub status: &'static str,
    pub sentence: String,
    pub causes: Vec<CauseCard>,
    pub ledger: Vec<LedgerRow>,
    pub listeners: Vec<ListenerLine>,
    /// What would be needed, causes that cannot be told without it, and why it is not there.
    pub not_checked: Vec<Missed>,
    pub ruled_out: Vec<(String, String)>,
    /// Who looked, how long and at how much of the node.
    pub looked: String,
    /// Network namespaces in which all is well, those that ended, and what would show the others.
    pub elsewhere: Vec<(&'static str, String)>,
    pub version: &'static str,
    pub origin: String,
}

pub struct CauseCard {
    pub rank: usize,
    pub id: String,
    pub title: String,
    pub severity: &'static str,
    pub state: &'static str,
    pub sure: String,
    pub summary: String,
    pub impact: String,
    pub because: String,
    pub harm: String,
    pub place: String,
    pub who: String,
    pub evidence: Vec<String>,
    pub against: Vec<String>,
    pub remedies: Vec<RemedyText>,
}

pub struct RemedyText {
    pub text: String,
    pub line: String,
    pub place: String,
    /// A command, and how to see by it that it worked.
    pub verify_command: String,
    pub verify: String,
}

pub struct LedgerRow {
    pub direction: &'static str,
    pub reason: String,
    pub count: String,
    pub basis: String,
}

pub struct ListenerLine {
    pub at: String,
    pub owner: String,
    pub queue: String,
    pub percent: u32,
    pub lost: String,
}

/// What is told of it.
pub fn view(diagnosis: &Diagnosis, options: &Options) -> ScanView {
    let report = &json::report(diagnosis);
    let whom = diagnosis.host.as_whom();
    let looked = [Some(page::length(diagnosis)), namespaces::share(diagnosis), whom.map(|whom| format!("as {whom}"))];
    let looked = safe(&looked.into_iter().flatten().collect::<Vec<_>>().join(", "));
    let netns = options.netns.as_ref().or(diagnosis.netns_name.as_ref());
    let head = [
        report.host.hostname.clone(),
        netns.map(|name| format!("netns {name}")),
        report.host.kernel.as_ref().map(|kernel| format!("Linux {kernel}")),
        Some(looked.clone()),
        // An empty capture has no time.
        (!diagnosis.started.wall.is_zero()).then(|| report.window.started_at.clone()),
        (!diagnosis.filter.is_empty()).then(|| format!("only {}", diagnosis.filter)),
    ];
    let elsewhere = [
        ("Fine", namespaces::rest(diagnosis)),
        ("Gone", namespaces::gone(diagnosis)),
        ("Not seen", namespaces::needs(diagnosis)),
    ];
    let causes = report.causes.iter().zip(&diagnosis.causes).map(|(cause, ranked)| card(cause, &ranked.finding));
    ScanView {
        host: report.host.hostname.as_deref().map(safe),
        head: safe(&head.into_iter().flatten().collect::<Vec<_>>().join(" · ")),
        status: match report.verdict.status {
            VerdictStatus::Ok => "ok",
            VerdictStatus::Warning => "warning",
            VerdictStatus::Critical => "critical",
            VerdictStatus::Unknown => "unknown",
        },
        sentence: safe(&report.verdict.summary),
        causes: causes.collect(),
        ledger: ledger(report),
        listeners: report.listeners.iter().take(MOST_LISTENERS).map(listener).collect(),
        not_checked: missing::missed(&diagnosis.not_checked).into_iter().map(safely).collect(),
        ruled_out: report.ruled_out.iter().map(|one| (safe(&one.id), safe(&one.why))).collect(),
        looked,
        elsewhere: elsewhere.into_iter().filter_map(|(word, text)| Some((word, safe(&text?)))).collect(),
        version: env!("CARGO_PKG_VERSION"),
        origin: safe(&origin(diagnosis, options, &report.window.started_at)),
    }
}

fn safely(missed: Missed) -> Missed {
    let all = |texts: &[String]| texts.iter().map(|text| safe(text)).collect();
    Missed { what: safe(&missed.what), titles: all(&missed.titles), reasons: all(&missed.reasons) }
}

/// `of this host as it ran, from 2026-11-28T08:34:10Z on`, `from the store of the flight recorder in ...`.
fn origin(diagnosis: &Diagnosis, options: &Options, started: &str) -> String {
    let what = match (diagnosis.input, &options.origin) {
        (_, Some(origin)) => format!("from {origin}"),
        (Input::Live, None) => "of this host as it ran".to_owned(),
        (Input::Recording, None) => "from a recording".to_owned(),
        (Input::Store, None) => "from a store of the flight recorder".to_owned(),
        (Input::Capture, None) => "from a capture".to_owned(),
        (Input::Text, None) => "from a text".to_owned(),
    };
    match diagnosis.started.wall.is_zero() {
        true => what,
        false => format!("{what}: what is judged begins at {started}"),
    }
}

fn card(cause: &Cause, finding: &Finding) -> CauseCard {
    let impact = &cause.impact;
    CauseCard {
        rank: cause.rank,
        id: safe(&cause.id),
        title: safe(&cause.title),
        severity: match cause.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        },
        state: match cause.state {
            State::Active => "active",
            State::Past => "since boot only",
            State::Risk => "a risk",
            State::Benign => "harmless",
        },
        sure: percent(cause.confidence),
        summary: safe(&cause.summary),
        impact: format!("{}, {} per s", safe(&amount(impact.events, &impact.unit)), rate(impact.per_s)),
        because: cause.because_of.as_deref().map(safe).unwrap_or_default(),
        harm: block::harm(finding).as_deref().map(safe).unwrap_or_default(),
        place: finding.location.as_deref().map(|location| safe(&block::whereabouts(location))).unwrap_or_default(),
        who: cause.subjects.iter().map(subject).filter(|who| !who.is_empty()).collect::<Vec<_>>().join("; "),
        // The share has a line of its own.
        evidence: texts(cause.evidence.iter().filter(|item| item.metric != "share" || finding.harm.is_none())),
        against: texts(&cause.counter_evidence),
        remedies: cause.remedies.iter().map(remedy).collect(),
    }
}

fn texts<'a>(items: impl IntoIterator<Item = &'a Evidence>) -> Vec<String> {
    items.into_iter().map(|item| safe(&item.text)).collect()
}

fn subject(subject: &Subject) -> String {
    let end = match (&subject.address, subject.port) {
        (Some(address), Some(port)) if address.contains(':') => Some(format!("[{address}]:{port}")),
        (Some(address), Some(port)) => Some(format!("{address}:{port}")),
        (Some(address), None) => Some(address.clone()),
        (None, Some(port)) => Some(format!("port {port}")),
        (None, None) => None,
    };
    let process = subject.process.as_ref().map(|name| match subject.pid {
        Some(pid) => format!("{name} (pid {pid})"),
        None => name.clone(),
    });
    let count = subject.count.map(|count| match count {
        1 => "once".to_owned(),
        count => format!("{} times", thousands(count)),
    });
    let parts: Vec<String> = [end, process, subject.unit.clone(), count].into_iter().flatten().collect();
    safe(&parts.join(", "))
}

fn remedy(remedy: &Remedy) -> RemedyText {
    let lines: Vec<&str> =
        [&remedy.command, &remedy.line, &remedy.persist].into_iter().flatten().map(String::as_str).collect();
    let place: Vec<&str> = [&remedy.file, &remedy.place].into_iter().flatten().map(String::as_str).collect();
    let verify_command = remedy.verify_command.as_deref().unwrap_or_default();
    RemedyText {
        text: safe(&remedy.text),
        line: lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n"),
        place: safe(&place.join(", ")),
        verify: safe(remedy.verify.strip_prefix(verify_command).unwrap_or(&remedy.verify).trim_start()),
        verify_command: safe(verify_command),
    }
}

/// Each side's lines, and what is left: what nobody counted is a question mark.
fn ledger(report: &Report) -> Vec<LedgerRow> {
    let ledger = &report.ledger;
    let mut rows = Vec::new();
    let mut side = |direction: &'static str, total: Option<u64>, lines: &[ByReason], unexplained: Option<u64>| {
        rows.push(row(direction, "in total", total, ""));
        rows.extend(lines.iter().map(|line| {
            row(
                direction,
                &words(&line.reason, line.cause.as_deref()),
                Some(line.count),
                &format!("{:?}", line.basis).to_lowercase(),
            )
        }));
        if total.is_some_and(|total| total > 0) {
            rows.push(row(direction, "unexplained", unexplained, ""));
        }
    };
    side("sent", ledger.sent.total, &ledger.sent.by_reason, ledger.sent.unexplained);
    side(
        "attempts lost",
        ledger.connections_dropped.total,
        &ledger.connections_dropped.by_reason,
        ledger.connections_dropped.unexplained,
    );
    rows.push(row("received", "in total", ledger.received.total, ""));
    let states = ledger.received.by_state.iter();
    rows.extend(states.map(|line| {
        row(
            "received",
            &words(&line.state, line.cause.as_deref()),
            Some(line.count),
            &format!("{:?}", line.basis).to_lowercase(),
        )
    }));
    rows.push(row("firewall", "in total", ledger.firewall.total, ""));
    rows
}

fn row(direction: &'static str, reason: &str, count: Option<u64>, basis: &str) -> LedgerRow {
    let count = count.map_or_else(|| "?".to_owned(), thousands);
    LedgerRow { direction, reason: safe(reason), count, basis: basis.to_owned() }
}

fn listener(listener: &Listener) -> ListenerLine {
    let address =
        if listener.address.contains(':') { format!("[{}]", listener.address) } else { listener.address.clone() };
    let owner = listener.processes.first().map(|process| format!("{} (pid {})", process.name, process.pid));
    ListenerLine {
        at: safe(&format!("{address}:{}", listener.port)),
        owner: owner.as_deref().map(safe).unwrap_or_default(),
        queue: format!("{} of {}", thousands(listener.recv_q.into()), thousands(listener.send_q.into())),
        percent: (listener.fill.clamp(0.0, 1.0) * 100.0).round() as u32,
        lost: listener.drops.map_or_else(|| "?".to_owned(), thousands),
    }
}
