//! What a monitoring system is told: counters since the program began, and gauges of the latest window. Encoded by the client
//! library of Prometheus, as OpenMetrics or in the older text format.
//!
//! No peer address and no process id is a label, and every family has a bound: what is beyond it is counted under `other`.

use std::fmt;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::diagnosis::{Diagnosis, Status};
use crate::history::{Account, Place};
use crate::timeline::Tick;
use crate::value::escape::visible;

mod bounded;
mod causes;
mod own;
mod resets;
mod services;

pub use own::Own;

use bounded::{Count, Labels, Level, Measure, add, set};
use causes::{Active, Causes};
use own::OwnMetrics;
use resets::Resets;
use services::Services;

/// The media types of the two formats.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const TEXT: &str = prometheus_text::CONTENT_TYPE;

/// The families.
pub struct Metrics {
    registries: Registries,
    resets: Resets,
    services: Services,
    causes: Causes,
    windows: Count,
    verdict: Level,
    source: Level,
    partial: Level,
    latest: Measure,
    own: OwnMetrics,
}

/// What is served, and what is written for the textfile collector: node_exporter tells its own process_* and takes no others.
#[derive(Default)]
struct Registries {
    served: Registry,
    file: Registry,
}

impl Registries {
    fn add(&mut self, name: &str, help: &str, family: &(impl Metric + Clone)) {
        self.served.register(name, help, family.clone());
        self.file.register(name, help, family.clone());
    }

    fn add_in(&mut self, unit: &Unit, name: &str, help: &str, family: &(impl Metric + Clone)) {
        self.served.register_with_unit(name, help, unit.clone(), family.clone());
        self.file.register_with_unit(name, help, unit.clone(), family.clone());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut to = Registries::default();
        let build = Level::default();
        build.at(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
        to.add("rstdoctor_build_info", "Version of rstdoctor; always 1", &build.family);

        let resets = Resets::default();
        let help = "RSTs, and connection attempts lost without one, by direction, reason, cause and how it is known";
        to.add("rstdoctor_resets", help, &resets.counted.family);
        let help = "RSTs that the kernel counted and no reason accounts for";
        to.add("rstdoctor_resets_unexplained", help, &resets.unexplained.family);

        let services = Services::default();
        let help = "Connections of clients to a served port that ended or failed, and attempts that were lost at its listener; each retry of a lost one counts";
        to.add("rstdoctor_service_attempts", help, &services.attempts);
        let help = "Those of them that failed by this host's doing, or were lost; no series where that cannot be seen";
        to.add("rstdoctor_service_failures", help, &services.failures);
        let help = "Connection attempts lost at a listener, an upper bound (SK_MEMINFO_DROPS)";
        to.add("rstdoctor_listener_drops", help, &services.drops);
        let help = "Connections in the accept queue of a listener, the most in the latest minute";
        to.add("rstdoctor_listener_accept_queue", help, &services.queue);
        let help = "Limit of the accept queue; the kernel admits one more";
        to.add("rstdoctor_listener_backlog", help, &services.backlog);
        let help = "Which limit binds the accept queue: application, somaxconn, stale, or unknown; always 1";
        to.add("rstdoctor_listener_backlog_limited_by", help, &services.limit);
        let help = "Listeners that are not named: their connections are counted under other, their queues are not told";
        to.add("rstdoctor_listeners_left_out", help, &services.left_out);

        let causes = Causes::default();
        let help = "A cause that goes on, by severity and place, with the cause that explains it if that goes on as well; always 1";
        to.add("rstdoctor_cause_active", help, &causes.active.family);
        let help = "Episodes of a cause by the severity that they reached and the cause that explains them; one that worsened is counted in both, and one without because_of is a fault of its own";
        to.add("rstdoctor_episodes", help, &causes.episodes.family);

        let (windows, verdict) = (Count::default(), Level::default());
        to.add("rstdoctor_windows", "Windows that were judged, by verdict", &windows.family);
        to.add("rstdoctor_verdict", "1 for the verdict of now, 0 for the others", &verdict.family);
        let (source, partial, latest) = (Level::default(), Level::default(), Measure::default());
        let help = "1 if a source of evidence could be read in the latest window, if only in part";
        to.add("rstdoctor_source_up", help, &source.family);
        let help = "1 if a part of a source could not be read in the latest window";
        to.add("rstdoctor_source_partial", help, &partial.family);
        let help = "When the latest window ended";
        to.add_in(&Unit::Seconds, "rstdoctor_latest_window_timestamp", help, &latest);

        let own = OwnMetrics::default();
        to.add_in(&Unit::Bytes, "rstdoctor_store_size", "What the store holds", &own.store);
        let help = "Files that were deleted because the store was full";
        to.add("rstdoctor_store_files_deleted", help, &own.deleted);
        to.add("rstdoctor_store_failing", "1 while the index or raw evidence cannot be stored", &own.failing);
        let [cpu, memory, fds] = ["CPU time of rstdoctor", "Memory of rstdoctor", "Open files of rstdoctor"];
        to.add_in(&Unit::Seconds, "rstdoctor_process_cpu", cpu, &own.cpu);
        to.add_in(&Unit::Bytes, "rstdoctor_process_resident_memory", memory, &own.resident);
        to.add("rstdoctor_process_open_fds", fds, &own.fds);
        to.served.register_with_unit("process_cpu", cpu, Unit::Seconds, own.cpu.clone());
        to.served.register_with_unit("process_resident_memory", memory, Unit::Bytes, own.resident.clone());
        to.served.register("process_open_fds", fds, own.fds.clone());
        Self { registries: to, resets, services, causes, windows, verdict, source, partial, latest, own }
    }
}

impl Metrics {
    /// Takes a tick: what was counted in it, as its account tells with all services, and what goes on.
    pub fn tick(&mut self, tick: &Tick, account: &Account) {
        self.causes.happened(tick);
        self.window(&tick.diagnosis, account, &Active::of_tick(tick));
    }

    fn window(&mut self, diagnosis: &Diagnosis, account: &Account, active: &[Active]) {
        self.resets.window(account, diagnosis);
        let status = account.status.unwrap_or(Status::Unknown);
        for one in [Status::Ok, Status::Warning, Status::Critical, Status::Unknown] {
            let is_it = one == status;
            self.verdict.at(vec![("status", one.name().to_owned())]).set(i64::from(is_it));
            let ticks = if is_it { account.ticks } else { 0 };
            add(&self.windows, vec![("verdict", one.name().to_owned())], Some(u64::from(ticks)));
        }
        let length = account.until.saturating_sub(account.from);
        let resets = resets::told(diagnosis);
        self.services.window(&account.services, length, diagnosis.listeners_left_out, resets);
        self.causes.go_on(active);
        self.source.clear();
        self.partial.clear();
        for source in &diagnosis.sources {
            let labels = vec![("source", source.name.to_owned())];
            let failed = source.failure.is_some();
            set(&self.source, labels.clone(), i64::from(!failed || source.partial));
            set(&self.partial, labels, i64::from(failed && source.partial));
        }
        self.latest.get_or_create(&Labels::new()).set(account.until as f64 / 1000.0);
    }

    /// What the program costs.
    pub fn own(&self, own: Own) {
        self.own.set(own);
    }

    /// As OpenMetrics 1.0.
    ///
    /// # Errors
    /// None in practice: a String takes everything.
    pub fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registries.served)?;
        Ok(out)
    }

    /// In the text format of Prometheus 0.0.4.
    ///
    /// # Errors
    /// None in practice: a String takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        prometheus_text::encode(&mut out, &self.registries.served)?;
        Ok(out)
    }

    /// The same for the textfile collector of node_exporter.
    ///
    /// # Errors
    /// None in practice: a String takes everything.
    pub fn textfile(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        prometheus_text::encode(&mut out, &self.registries.file)?;
        Ok(out)
    }
}

/// The metrics of one diagnosis.
///
/// # Errors
/// None in practice.
pub fn once(diagnosis: &Diagnosis) -> Result<String, fmt::Error> {
    let mut metrics = Metrics::default();
    let account = Account::of_window(diagnosis, diagnosis.status, Vec::new());
    metrics.window(diagnosis, &account, &Active::of_window(diagnosis));
    metrics.openmetrics()
}

/// What tells a place from others. Of a peer only that it is one: its address is no label.
fn place(place: &Place) -> Labels {
    let text = |text: &Option<String>| text.as_deref().map(|text| visible(text).into_owned()).unwrap_or_default();
    vec![
        ("port", place.port.map(|port| port.to_string()).unwrap_or_default()),
        ("process", text(&place.process)),
        ("unit", text(&place.unit)),
        // A namespace without a name is told by its process; which one of that name is no label.
        ("netns", text(&place.netns).split(" (pid ").next().unwrap_or_default().to_owned()),
    ]
}

#[cfg(test)]
mod tests;
