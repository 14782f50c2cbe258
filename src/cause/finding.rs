//! What a cause says when it was found: state, confidence, who, evidence and remedies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::backlog::BindingLimit;
use crate::evidence::harm::Harm;
use crate::evidence::service::Service;
use crate::evidence::share;
use crate::observation::delta::Reading;
use crate::source::node::{Container, Location};
use crate::source::owners::Process;
use crate::source::reset_events::Task;
use crate::value::Missing;
use crate::value::outside::UnitName;
use crate::value::words;

use super::numbers::Confidence;
use super::remedy::Remedy;

/// The three values of a verdict are `Ok(Found)`, `Ok(RuledOut)` and `Err(Missing)`: could not check.
pub type Judgement = Result<Verdict, Missing>;

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// One finding for each place where it happens; never empty.
    Found(Vec<Finding>),
    /// It was looked for and is not there; why, in plain words.
    RuledOut(String),
}

impl Verdict {
    /// `Found` if there is anything, else ruled out for the given reason.
    pub fn from_findings(findings: Vec<Finding>, otherwise: impl Into<String>) -> Self {
        if findings.is_empty() { Self::RuledOut(otherwise.into()) } else { Self::Found(findings) }
    }
}

/// Ordered as they rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Moved in the window.
    Active,
    /// Happened since boot, not in the window.
    Past,
    /// Nothing moved yet; it will bite.
    Risk,
    /// Explains numbers and is no fault.
    Benign,
}

impl State {
    /// It happens, or will: neither over nor harmless.
    pub fn is_now(self) -> bool {
        matches!(self, Self::Active | Self::Risk)
    }
}

/// Ordered as they rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub state: State,
    pub severity: Severity,
    /// Probability that this is what happens, 0 to 1; checked against the lab.
    pub confidence: f64,
    pub impact: Impact,
    /// One plain sentence for the first line of the report, with the subject and the number, without a final period.
    pub summary: String,
    pub subjects: Vec<Subject>,
    pub evidence: Vec<EvidenceItem>,
    /// What speaks against it, or cannot be told apart from it.
    pub counter_evidence: Vec<EvidenceItem>,
    pub remedies: Vec<Remedy>,
    /// The limit of the accept queue that binds, where the finding is about one.
    pub binding_limit: Option<BindingLimit>,
    /// How many connections of the place failed, of how many.
    pub harm: Option<Harm>,
    /// Where it was found, if not in the network namespace of the one who looks.
    pub location: Option<Arc<Location>>,
    /// The summary says itself where that is.
    pub tells_place: bool,
    /// It is as bad as this only together with the windows before.
    pub together: Option<Together>,
    /// Other findings of its place may follow from it.
    pub has_symptoms: bool,
    /// So many of what it counts are there at the end of the window, and are counted again in the next: of a row of windows the most
    /// at once are told, and not their sum.
    pub standing: u64,
    /// It was observed at another time, and perhaps on another host: what it names is not what bears that name here.
    pub elsewhere: bool,
}

/// A finding and those of its place in the windows just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// When the first of these windows began, CLOCK_BOOTTIME.
    pub since: Duration,
    /// What was lost or reset in all of them.
    pub events: u64,
}

impl Finding {
    /// The summary as a sentence begins: in capitals, unless a process begins it, whose name keeps its spelling.
    pub fn sentence(&self) -> String {
        let named = |subject: &Subject| {
            subject.process.as_ref().is_some_and(|name| !name.is_empty() && self.summary.starts_with(name.as_str()))
        };
        let mut letters = self.summary.chars();
        match letters.next() {
            Some(first) if !self.subjects.iter().any(named) => first.to_uppercase().chain(letters).collect(),
            _ => self.summary.clone(),
        }
    }

    /// A finding without subjects, evidence or remedies yet.
    pub fn new(
        state: State,
        severity: Severity,
        confidence: Confidence,
        impact: Impact,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            state,
            severity,
            confidence: confidence.value(),
            impact,
            summary: summary.into(),
            subjects: Vec::new(),
            evidence: Vec::new(),
            counter_evidence: Vec::new(),
            remedies: Vec::new(),
            binding_limit: None,
            harm: None,
            together: None,
            location: None,
            tells_place: false,
            has_symptoms: true,
            standing: 0,
            elsewhere: false,
        }
    }

    /// Of what it counts so many are there still.
    pub fn standing(self, standing: u64) -> Self {
        Self { standing, ..self }
    }

    /// What came in the window, without what is there at its end and is counted again in the next.
    pub fn passing(&self) -> u64 {
        self.impact.events.saturating_sub(self.standing)
    }

    /// For a reader who is not on the host that was observed, or later: no command names what was there.
    pub fn elsewhere(self) -> Self {
        let remedies = self.remedies.into_iter().map(Remedy::elsewhere).collect();
        Self { remedies, elsewhere: true, ..self }
    }

    pub fn subject(mut self, subject: Subject) -> Self {
        self.subjects.push(subject);
        self
    }

    pub fn subjects(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        self.subjects.extend(subjects);
        self
    }

    pub fn evidence(mut self, item: impl Into<EvidenceItem>) -> Self {
        self.evidence.push(item.into());
        self
    }

    pub fn evidence_if(self, item: Option<EvidenceItem>) -> Self {
        match item {
            Some(item) => self.evidence(item),
            None => self,
        }
    }

    /// How many connections of the place failed, as evidence where their number is known.
    pub fn harm(mut self, harm: Harm) -> Self {
        let lately = harm.lately.filter(|_| self.severity < Severity::Info);
        let (failures, attempts, when) = match lately {
            Some(lately) => {
                let over = words::seconds(lately.over);
                (lately.failures, Some(lately.attempts), format!("in the last {over}"))
            }
            None => (harm.failures, harm.attempts, "in the window".to_owned()),
        };
        if let Some((attempts, [low, high])) = attempts.and_then(|all| Some((all, share::interval(failures, all)?))) {
            let share = failures as f64 / attempts as f64;
            let text = format!(
                "{} of {} that this place had {when}: {}, in 95 of 100 such windows between {} and {}",
                words::thousands(failures),
                words::counted(attempts, "connection"),
                words::percent(share),
                words::percent(low),
                words::percent(high)
            );
            self.evidence.push(EvidenceItem::value("destroyed_sockets", "share", share, text));
        }
        if let Some(lately) = lately {
            let (failures, all) = (words::thousands(lately.failures), words::thousands(lately.attempts));
            let of =
                if lately.failures >= lately.attempts { format!("all {all}") } else { format!("{failures} of {all}") };
            let together = Together { since: lately.since, events: lately.failures };
            self = self.together(together, format!("{of} {when} failed"));
        }
        self.harm = Some(harm);
        self
    }

    /// It is so bad together with the windows before. `text`: what they add.
    pub fn together(mut self, together: Together, text: String) -> Self {
        self.summary = format!("{} ({text})", self.summary);
        self.together = Some(together);
        self
    }

    pub fn harm_if(self, harm: Option<Harm>) -> Self {
        match harm {
            Some(harm) => self.harm(harm),
            None => self,
        }
    }

    pub fn against(mut self, item: impl Into<EvidenceItem>) -> Self {
        self.counter_evidence.push(item.into());
        self
    }

    pub fn against_if(self, item: Option<EvidenceItem>) -> Self {
        match item {
            Some(item) => self.against(item),
            None => self,
        }
    }

    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedies.push(remedy);
        self
    }
}

/// How much harm: what was lost, reset or refused in the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Impact {
    pub events: u64,
    pub per_s: f64,
    /// Plural noun: `connection attempts`, `resets`, `sockets`.
    pub unit: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    Listener,
    Process,
    Peer,
    Connection,
    Path,
    Host,
}

/// Who or what a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: SubjectKind,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub pid: Option<u32>,
    /// Process name as the kernel gave it; escaped by the renderer.
    pub process: Option<String>,
    pub unit: Option<UnitName>,
    /// How many events fall on this subject.
    pub count: Option<u64>,
    /// Where it is, if not in the network namespace of the one who looks.
    pub location: Option<Arc<Location>>,
    pub container: Option<Arc<Container>>,
}

impl Subject {
    pub fn new(kind: SubjectKind) -> Self {
        Self {
            kind,
            address: None,
            port: None,
            pid: None,
            process: None,
            unit: None,
            count: None,
            location: None,
            container: None,
        }
    }

    pub fn host() -> Self {
        Self::new(SubjectKind::Host)
    }

    pub fn process(process: &Process) -> Self {
        Self::new(SubjectKind::Process).held_by(process)
    }

    /// `nginx (pid 4121)`, where the process is known; text from outside, not escaped.
    pub fn label(&self) -> Option<String> {
        Some(words::process(self.process.as_deref()?, self.pid?))
    }

    /// A process as a tracepoint named it.
    pub fn task(task: &Task) -> Self {
        Self { pid: Some(task.pid), process: Some(task.name.clone()), ..Self::new(SubjectKind::Process) }
    }

    pub fn peer(address: IpAddr, port: Option<u16>) -> Self {
        Self { address: Some(address), port, ..Self::new(SubjectKind::Peer) }
    }

    /// The listener of a service, with its first owner.
    pub fn listener(service: &Service<'_>) -> Self {
        let subject =
            Self { address: Some(service.address), port: Some(service.port), ..Self::new(SubjectKind::Listener) };
        match service.owners.first() {
            Some(process) => subject.held_by(process),
            None => subject,
        }
    }

    pub fn counted(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    fn held_by(mut self, process: &Process) -> Self {
        self.pid = Some(process.pid);
        self.process = Some(process.name.clone());
        self.unit = process.unit.clone();
        self
    }
}

/// One piece of evidence: the raw numbers and what they mean in plain words.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceItem {
    pub source: &'static str,
    pub metric: String,
    pub before: Option<f64>,
    pub after: Option<f64>,
    pub delta: Option<f64>,
    pub per_s: Option<f64>,
    /// A plain sentence or clause, complete without the numbers beside it.
    pub text: String,
}

impl EvidenceItem {
    /// From a counter that was read at both ends of the window.
    pub fn counter(reading: &Reading, text: impl Into<String>) -> Self {
        Self {
            source: reading.source,
            metric: reading.metric.clone(),
            before: Some(reading.before as f64),
            after: Some(reading.after as f64),
            delta: Some(reading.delta as f64),
            per_s: Some(reading.per_s),
            text: text.into(),
        }
    }

    /// From a value that has no meaningful difference: a queue length, a limit, a setting.
    pub fn value(source: &'static str, metric: impl Into<String>, value: f64, text: impl Into<String>) -> Self {
        let metric = metric.into();
        Self { source, metric, before: None, after: Some(value), delta: None, per_s: None, text: text.into() }
    }

    /// A fact without a number of its own.
    pub fn fact(source: &'static str, metric: impl Into<String>, text: impl Into<String>) -> Self {
        let metric = metric.into();
        Self { source, metric, before: None, after: None, delta: None, per_s: None, text: text.into() }
    }
}
