//! What a diagnosis tells of that which a scenario can state beforehand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ask::Host;
use crate::attribution::Attribution;
use crate::cause::{self, Severity, State};
use crate::diagnosis::Diagnosis;
use crate::diagnosis::filter::Filter;
use crate::diagnosis::node::{Namespace, diagnose_all};
use crate::evidence::Evidence;
use crate::evidence::ledger::{Account, Ledger};
use crate::session::{Plan, observe};
use crate::source::reset_events::Direction;
use crate::timeline::{Driver, Next};

/// The part of a diagnosis that a scenario can state beforehand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// `ok`, `warning`, `critical` or `unknown`.
    pub verdict: String,
    pub summary: String,
    /// Single resets were seen, so that ports and processes can be expected.
    #[serde(default)]
    pub reset_events: bool,
    /// In rank order.
    pub causes: Vec<Finding>,
    /// The RSTs that the host sent; `None` where single resets were not seen.
    #[serde(default)]
    pub sent: Option<Sent>,
    /// Of a whole node: its network namespaces, and the totals of all.
    #[serde(default)]
    pub namespaces: Vec<Neighbour>,
    #[serde(default)]
    pub totals: Totals,
}

/// One network namespace of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    pub verdict: String,
    pub totals: Totals,
    /// It ended in the window.
    #[serde(default)]
    pub gone: bool,
}

/// What the ledger counted, where it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub sent: Option<u64>,
    pub dropped: Option<u64>,
}

impl Totals {
    fn of(ledger: &Ledger) -> Self {
        Self { sent: ledger.sent.total.clone().ok(), dropped: ledger.dropped.total.clone().ok() }
    }
}

/// The sent side of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub total: u64,
    pub unexplained: u64,
    /// Counted by the kernel, which had no record of them to give.
    pub not_delivered: u64,
    pub groups: Vec<SentGroup>,
}

/// RSTs that are alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SentGroup {
    /// As in the ledger.
    pub reason: String,
    pub cause: Option<String>,
    /// A process did it, by a call of its own.
    pub by_process: bool,
    pub process: Option<String>,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub id: String,
    /// `active`, `past`, `risk` or `benign`.
    pub state: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    pub confidence: f64,
    /// The deeper cause that explains this one.
    pub because_of: Option<String>,
    pub subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    pub port: Option<u16>,
    pub pid: Option<u32>,
    pub process: Option<String>,
}

/// What an observation gave.
#[derive(Debug, Clone, Default)]
pub struct Diagnosed {
    /// Of the whole; of the last tick where there are ticks.
    pub findings: Findings,
    /// Of each tick, if it was observed in ticks.
    pub ticks: Vec<Findings>,
    /// Of the whole with less evidence, by the name of the level, where that was asked for.
    pub levels: BTreeMap<String, Findings>,
    /// Records of events that the kernel could not deliver, of all namespaces.
    pub lost_records: u64,
}

fn sent(resets: &Attribution, account: &Account) -> Option<Sent> {
    let groups = resets.groups.iter().filter(|group| group.direction == Direction::Sent).map(|group| SentGroup {
        reason: group.kind.name().to_owned(),
        cause: group.kind.cause().map(str::to_owned),
        by_process: group.kind.is_by_process(),
        process: group.task.as_ref().map(|task| task.name.clone()),
        count: group.count,
    });
    let total = account.total.as_ref().ok().copied()?;
    Some(Sent { total, unexplained: account.unexplained()?, not_delivered: resets.lost.sent, groups: groups.collect() })
}

/// Observes a host and judges it, as `scan` does; as `watch` does where there is an interval.
pub fn watch(host: &mut dyn Host, window: Duration, interval: Option<Duration>) -> Result<Diagnosed, String> {
    let plan = Plan::scan(window);
    let Some(interval) = interval else {
        let observation = observe(host, &plan).map_err(|error| error.to_string())?;
        // Records of events in a timer can be missing on an idle CPU (seen on Linux 6.18): then the counters were judged.
        let view = observation.view().ok_or("no network namespace was observed")?;
        let evidence = Evidence::new(view);
        // Packets alone tell the received ones from nothing, and name no process.
        let resets = evidence.attribution().ok().filter(|resets| resets.sent.is_ok() && resets.received.is_ok());
        let diagnosis = diagnose_all(&observation, &Filter::default(), &|| false);
        let diagnosis = diagnosis.ok_or("no network namespace was observed")?;
        let alone = diagnosis.namespaces.is_empty();
        let sent = resets.filter(|_| alone).and_then(|resets| sent(resets, &diagnosis.ledger.sent));
        let findings = Findings { reset_events: resets.is_some(), sent, ..findings(&diagnosis) };
        let lost_records = view.host.reset_events.value().map_or(0, |account| account.lost);
        return Ok(Diagnosed { findings, lost_records, ..Diagnosed::default() });
    };
    let mut driver = Driver::start(host, &plan, interval, Filter::default()).map_err(|error| error.to_string())?;
    let mut ticks = Vec::new();
    loop {
        match driver.advance() {
            Next::Looked => {}
            Next::Tick(tick) => ticks.push(findings(&tick.diagnosis)),
            Next::Over => break,
        }
    }
    Ok(Diagnosed { findings: ticks.last().cloned().unwrap_or_default(), ticks, ..Diagnosed::default() })
}

fn findings(diagnosis: &Diagnosis) -> Findings {
    let causes = diagnosis.causes.iter().map(|ranked| Finding {
        id: ranked.id.to_owned(),
        state: match ranked.finding.state {
            State::Active => "active",
            State::Past => "past",
            State::Risk => "risk",
            State::Benign => "benign",
        }
        .to_owned(),
        severity: match ranked.finding.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
        .to_owned(),
        confidence: ranked.finding.confidence,
        because_of: ranked.because_of.map(|root| root.id.to_owned()),
        subjects: ranked.finding.subjects.iter().map(subject).collect(),
    });
    Findings {
        verdict: diagnosis.status.name().to_owned(),
        summary: diagnosis.summary.clone(),
        reset_events: false,
        sent: None,
        namespaces: diagnosis.namespaces.iter().map(neighbour).collect(),
        totals: Totals::of(&diagnosis.ledger),
        causes: causes.collect(),
    }
}

fn neighbour(one: &Namespace) -> Neighbour {
    Neighbour { verdict: one.status.name().to_owned(), totals: Totals::of(&one.ledger), gone: one.gone }
}

fn subject(subject: &cause::Subject) -> Subject {
    Subject { port: subject.port, pid: subject.pid, process: subject.process.clone() }
}
