//! The one place where the lab meets the diagnosis.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::How;
use crate::cause::{self, Severity, State};
use crate::diagnosis::{self, Diagnosis};
use crate::evidence::Evidence;
use crate::filter::Filter;
use crate::host::{LiveHost, RecordingFile, RecordingHost};
use crate::observe::{Plan, observe};
use crate::source::{Answer, Ask, Frame, Host, Moment};
use crate::watch::{Driver, Next};

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
}

/// Diagnoses the network namespace of this process over a window, exactly as `scan` or `watch` does, and writes a recording
/// if asked. Calls `opened` at least once, as soon as the window is open. Blocks for the window.
pub fn diagnose(window: Duration, how: &How, opened: &mut dyn FnMut()) -> Result<Diagnosed, String> {
    let mut live = Opening { inner: LiveHost::new(Arc::default()), opened };
    match &how.record {
        None => watch(&mut live, window, how.interval),
        Some(path) => {
            let file = RecordingFile::create(path, false).map_err(|error| error.to_string())?;
            let mut recording = RecordingHost::new(live, file, false);
            let diagnosed = watch(&mut recording, window, how.interval)?;
            recording.finish().and_then(RecordingFile::persist).map_err(|error| error.to_string())?;
            Ok(diagnosed)
        }
    }
}

fn watch(host: &mut dyn Host, window: Duration, interval: Option<Duration>) -> Result<Diagnosed, String> {
    let plan = Plan::scan(window);
    let Some(interval) = interval else {
        let observation = observe(host, &plan).map_err(|error| error.to_string())?;
        // Records of events in a timer can be missing on an idle CPU (seen on Linux 6.18): then the counters were judged.
        let reset_events = Evidence::new(&observation).attribution().is_ok_and(|resets| resets.sent.is_ok());
        let findings = Findings { reset_events, ..findings(&diagnosis::diagnose(&observation)) };
        return Ok(Diagnosed { findings, ticks: Vec::new() });
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
    Ok(Diagnosed { findings: ticks.last().cloned().unwrap_or_default(), ticks })
}

/// A host that says when the window is open: the first look inside it follows the opening counters.
struct Opening<'a> {
    inner: LiveHost,
    opened: &'a mut dyn FnMut(),
}

impl Host for Opening<'_> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        if let Frame::Poll { .. } = frame {
            (self.opened)();
        }
        self.inner.frame(frame)
    }

    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        self.inner.ask(ask, sink)
    }
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
        because_of: ranked.because_of.map(str::to_owned),
        subjects: ranked.finding.subjects.iter().map(subject).collect(),
    });
    Findings {
        verdict: diagnosis.status.name().to_owned(),
        summary: diagnosis.summary.clone(),
        reset_events: false,
        causes: causes.collect(),
    }
}

fn subject(subject: &cause::Subject) -> Subject {
    Subject { port: subject.port, pid: subject.pid, process: subject.process.clone() }
}
