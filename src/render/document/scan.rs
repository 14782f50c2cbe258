//! What a document tells of one diagnosis, made of what programs read of it.

use super::safe;
use crate::render::json::Report;
use crate::render::json::wire::report::{ByReason, Cause, Listener, Remedy, Severity, State, Subject, VerdictStatus};
use crate::value::words::{percent, rate, seconds, thousands};

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
    pub not_checked: Vec<(String, String)>,
    pub ruled_out: Vec<(String, String)>,
    pub version: &'static str,
    pub window: String,
    pub started: String,
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
    pub who: String,
    pub evidence: Vec<String>,
    pub against: Vec<String>,
    pub remedies: Vec<RemedyText>,
}

pub struct RemedyText {
    pub text: String,
    pub line: String,
    pub place: String,
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
pub fn view(report: &Report) -> ScanView {
    let window = seconds(std::time::Duration::try_from_secs_f64(report.window.duration_s).unwrap_or_default());
    let host = report.host.hostname.as_deref().map(safe);
    let kernel = report.host.kernel.as_deref().map(|kernel| format!("Linux {}", safe(kernel)));
    let started = report.window.started_at.clone();
    let head: Vec<String> =
        [host.clone(), kernel, Some(window.clone()), Some(started.clone())].into_iter().flatten().collect();
    ScanView {
        host,
        head: head.join(" · "),
        status: match report.verdict.status {
            VerdictStatus::Ok => "ok",
            VerdictStatus::Warning => "warning",
            VerdictStatus::Critical => "critical",
            VerdictStatus::Unknown => "unknown",
        },
        sentence: safe(&report.verdict.summary),
        causes: report.causes.iter().map(card).collect(),
        ledger: ledger(report),
        listeners: report.listeners.iter().take(MOST_LISTENERS).map(listener).collect(),
        not_checked: report
            .not_checked
            .iter()
            .map(|one| (safe(&one.id), safe(&with_needs(&one.reason, one.needs.as_deref()))))
            .collect(),
        ruled_out: report.ruled_out.iter().map(|one| (safe(&one.id), safe(&one.why))).collect(),
        version: env!("CARGO_PKG_VERSION"),
        window,
        started,
    }
}

fn with_needs(reason: &str, needs: Option<&str>) -> String {
    needs.map_or_else(|| reason.to_owned(), |needs| format!("{reason} (needs {needs})"))
}

fn card(cause: &Cause) -> CauseCard {
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
        impact: format!("{} {}, {} per s", thousands(impact.events), safe(&impact.unit), rate(impact.per_s)),
        because: cause.because_of.as_deref().map(safe).unwrap_or_default(),
        who: cause.subjects.iter().map(subject).filter(|who| !who.is_empty()).collect::<Vec<_>>().join("; "),
        evidence: cause.evidence.iter().map(|item| safe(&item.text)).collect(),
        against: cause.counter_evidence.iter().map(|item| safe(&item.text)).collect(),
        remedies: cause.remedies.iter().map(remedy).collect(),
    }
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
    let count = subject.count.map(|count| format!("{} times", thousands(count)));
    let parts: Vec<String> = [end, process, subject.unit.clone(), count].into_iter().flatten().collect();
    safe(&parts.join(", "))
}

fn remedy(remedy: &Remedy) -> RemedyText {
    let lines: Vec<&str> =
        [&remedy.command, &remedy.line, &remedy.persist].into_iter().flatten().map(String::as_str).collect();
    let place: Vec<&str> = [&remedy.file, &remedy.place].into_iter().flatten().map(String::as_str).collect();
    RemedyText {
        text: safe(&remedy.text),
        line: lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n"),
        place: safe(&place.join(", ")),
        verify: safe(&remedy.verify),
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
                &line.reason.replace('-', " "),
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
        row("received", &line.state.replace('-', " "), Some(line.count), &format!("{:?}", line.basis).to_lowercase())
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
