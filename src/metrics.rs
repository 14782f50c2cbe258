//! What a monitoring system is told: counters since the program began, and gauges of the latest window. Encoded by the client
//! library of Prometheus, as OpenMetrics or in the older text format.
//!
//! No peer address and no process id is a label, and every family has a bound: what is beyond it is counted under `other`.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::cause::Severity;
use crate::diagnosis::{CONVINCING, Diagnosis, Status};
use crate::history::{Account, ActiveCause, Place, Service};
use crate::timeline::Key;
use crate::value::escape::visible;

/// Label sets of one family.
const MOST: usize = 200;
/// What stands for those beyond it.
const OTHER: &str = "other";

type Labels = Vec<(&'static str, String)>;
type Count = Bounded<Counter>;
type Level = Bounded<Gauge>;
type Measure = Family<Labels, Gauge<f64, AtomicU64>>;

/// A family that knows how many label sets it has.
#[derive(Default)]
struct Bounded<M> {
    family: Family<Labels, M>,
    count: AtomicUsize,
}

impl<M: Clone + Default> Bounded<M> {
    /// The metric of these labels, or that of the rest once the family is full.
    fn at(&self, labels: Labels) -> M {
        if self.family.get(&labels).is_some() {
            return self.family.get_or_create_owned(&labels);
        }
        if self.count.load(Ordering::Relaxed) < MOST {
            self.count.fetch_add(1, Ordering::Relaxed);
            return self.family.get_or_create_owned(&labels);
        }
        let other: Labels = labels.into_iter().map(|(name, _)| (name, OTHER.to_owned())).collect();
        self.family.get_or_create_owned(&other)
    }

    fn clear(&self) {
        self.family.clear();
        self.count.store(0, Ordering::Relaxed);
    }
}

/// What the program itself costs; absent where it cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Own {
    pub cpu_s: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub store_bytes: Option<u64>,
    /// Files that were deleted because the store was full.
    pub store_deleted: u64,
    /// What is seen cannot be stored.
    pub store_failing: bool,
}

/// The media types of the two formats.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const TEXT: &str = prometheus_text::CONTENT_TYPE;

/// The families.
pub struct Metrics {
    registry: Registry,
    resets: Count,
    unexplained: Count,
    attempts: Count,
    failures: Count,
    drops: Count,
    windows: Count,
    queue: Level,
    backlog: Level,
    limit: Level,
    cause: Level,
    verdict: Level,
    source: Level,
    latest: Measure,
    own: OwnMetrics,
}

struct OwnMetrics {
    cpu: Family<Labels, Counter<f64, AtomicU64>>,
    resident: Level,
    fds: Level,
    store: Level,
    deleted: Count,
    failing: Level,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let build = Level::default();
        build.at(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
        registry.register("rstdoctor_build_info", "Version of rstdoctor; always 1", build.family);
        let mut count = |name, help| {
            let family = Count::default();
            registry.register(name, help, family.family.clone());
            family
        };
        let resets = count(
            "rstdoctor_resets",
            "RSTs, and connection attempts lost without one, by direction, reason, cause and how it is known",
        );
        let unexplained =
            count("rstdoctor_resets_unexplained", "RSTs that the kernel counted and no reason accounts for");
        let attempts =
            count("rstdoctor_service_attempts", "Connections of clients to a served port that ended or failed");
        let failures = count("rstdoctor_service_failures", "Those of them that failed by this host's doing");
        let drops = count(
            "rstdoctor_listener_drops",
            "Connection attempts lost at a listener, an upper bound (SK_MEMINFO_DROPS)",
        );
        let windows = count("rstdoctor_windows", "Windows that were judged, by verdict");
        let deleted = count("rstdoctor_store_files_deleted", "Files that were deleted because the store was full");
        let mut level = |name, help| {
            let family = Level::default();
            registry.register(name, help, family.family.clone());
            family
        };
        let queue = level(
            "rstdoctor_listener_accept_queue",
            "Connections in the accept queue of a listener, the most in the latest window",
        );
        let backlog = level("rstdoctor_listener_backlog", "Limit of the accept queue; the kernel admits one more");
        let limit = level(
            "rstdoctor_listener_backlog_limited_by",
            "Which limit binds the accept queue: application, somaxconn, or stale; always 1",
        );
        let cause = level("rstdoctor_cause_active", "A cause that goes on, by severity and place; always 1");
        let verdict = level("rstdoctor_verdict", "1 for the verdict of now, 0 for the others");
        let source = level("rstdoctor_source_up", "1 if a source of evidence could be read in the latest window");
        let fds = level("process_open_fds", "Open files of rstdoctor");
        let failing = level("rstdoctor_store_failing", "1 while nothing can be stored");
        let latest = Measure::default();
        registry.register_with_unit(
            "rstdoctor_latest_window_timestamp",
            "When the latest window ended",
            Unit::Seconds,
            latest.clone(),
        );
        let (resident, store) = (Level::default(), Level::default());
        registry.register_with_unit(
            "process_resident_memory",
            "Memory of rstdoctor",
            Unit::Bytes,
            resident.family.clone(),
        );
        registry.register_with_unit("rstdoctor_store_size", "What the store holds", Unit::Bytes, store.family.clone());
        let cpu = Family::default();
        registry.register_with_unit("process_cpu", "CPU time of rstdoctor", Unit::Seconds, Clone::clone(&cpu));
        let own = OwnMetrics { cpu, resident, fds, store, deleted, failing };
        Self {
            registry,
            resets,
            unexplained,
            attempts,
            failures,
            drops,
            windows,
            queue,
            backlog,
            limit,
            cause,
            verdict,
            source,
            latest,
            own,
        }
    }
}

impl Metrics {
    /// Takes a window of a row: what was counted in it, and what goes on.
    pub fn window(&self, account: &Account, sources: &[(&'static str, bool)]) {
        for line in &account.resets {
            let labels = vec![
                ("direction", line.direction.name().to_owned()),
                ("reason", line.reason.clone()),
                ("cause", line.cause.clone().unwrap_or_default()),
                ("basis", format!("{:?}", line.basis).to_lowercase()),
            ];
            add(&self.resets, labels, Some(line.count));
        }
        add(&self.unexplained, vec![("direction", "sent".to_owned())], account.totals.sent_unexplained);
        let status = account.status.unwrap_or(Status::Unknown);
        add(&self.windows, vec![("verdict", status.name().to_owned())], Some(u64::from(account.ticks)));
        for one in [Status::Ok, Status::Warning, Status::Critical, Status::Unknown] {
            let labels = vec![("status", one.name().to_owned())];
            self.verdict.at(labels).set(i64::from(one == status));
        }
        // What is gone is no longer told.
        for level in [&self.queue, &self.backlog, &self.limit, &self.cause, &self.source] {
            level.clear();
        }
        for service in account.services.iter().chain(&account.other) {
            self.service(service);
        }
        for cause in &account.causes {
            let mut labels = place(&cause.place);
            labels.extend([("cause", cause.id.clone()), ("severity", severity(cause.severity).to_owned())]);
            set(&self.cause, labels, 1);
        }
        for (name, up) in sources {
            set(&self.source, vec![("source", (*name).to_owned())], i64::from(*up));
        }
        self.latest.get_or_create(&Labels::new()).set(account.until as f64 / 1000.0);
    }

    fn service(&self, service: &Service) {
        let labels =
            place(&service.place).into_iter().chain([("address", service.address.clone())]).collect::<Labels>();
        add(&self.attempts, labels.clone(), service.attempts);
        add(&self.failures, labels.clone(), service.failures);
        add(&self.drops, labels.clone(), service.drops);
        set(&self.queue, labels.clone(), i64::from(service.queue));
        set(&self.backlog, labels.clone(), i64::from(service.backlog));
        if let Some(limit) = &service.limit {
            set(&self.limit, labels.into_iter().chain([("limit", limit.clone())]).collect(), 1);
        }
    }

    /// What the program costs.
    pub fn own(&self, own: Own) {
        let none = Labels::new();
        if let Some(cpu) = own.cpu_s {
            let counter = self.own.cpu.get_or_create(&none);
            counter.inc_by((cpu - counter.get()).max(0.0));
        }
        let gauges = [
            (&self.own.resident, own.resident_bytes),
            (&self.own.fds, own.open_fds),
            (&self.own.store, own.store_bytes),
            (&self.own.failing, Some(u64::from(own.store_failing))),
        ];
        for (gauge, value) in gauges {
            if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
                gauge.at(none.clone()).set(value);
            }
        }
        let deleted = self.own.deleted.at(none);
        deleted.inc_by(own.store_deleted.saturating_sub(deleted.get()));
    }

    /// As OpenMetrics 1.0.
    ///
    /// # Errors
    /// None in practice: a String takes everything.
    pub fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    /// In the text format of Prometheus 0.0.4, which the textfile collector of node_exporter reads.
    ///
    /// # Errors
    /// None in practice: a String takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        prometheus_text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// The sources of a diagnosis, and whether they could be read.
pub fn sources(diagnosis: &Diagnosis) -> Vec<(&'static str, bool)> {
    diagnosis.sources.iter().map(|source| (source.name, source.failure.is_none() || source.partial)).collect()
}

/// The metrics of one diagnosis.
///
/// # Errors
/// None in practice.
pub fn once(diagnosis: &Diagnosis) -> Result<String, fmt::Error> {
    let metrics = Metrics::default();
    let causes = diagnosis
        .causes
        .iter()
        .filter(|ranked| ranked.finding.state.is_now() && ranked.finding.confidence >= CONVINCING);
    let active = causes.map(|ranked| {
        let (events, standing) = ActiveCause::counts(&ranked.finding);
        ActiveCause {
            id: ranked.id.to_owned(),
            place: Place::at(&Key::of(ranked).place, &ranked.finding, diagnosis),
            severity: ranked.finding.severity,
            state: ranked.finding.state,
            events,
            standing,
            because_of: None,
        }
    });
    metrics.window(&Account::of_window(diagnosis, diagnosis.status, active.collect()), &sources(diagnosis));
    metrics.openmetrics()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
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

fn add(family: &Count, labels: Labels, count: Option<u64>) {
    if let Some(count) = count {
        family.at(labels).inc_by(count);
    }
}

/// Of those beyond the bound the highest is told.
fn set(family: &Level, labels: Labels, value: i64) {
    let gauge = family.at(labels);
    gauge.set(gauge.get().max(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::ledger::Basis;
    use crate::history::{Direction, Line};

    fn account(services: usize) -> Account {
        let service = |index: usize| Service {
            place: Place {
                at: format!("port {index}"),
                port: u16::try_from(index).ok(),
                process: Some("we\"ird\n\u{202e}\\".to_owned()),
                ..Place::default()
            },
            address: "0.0.0.0".to_owned(),
            attempts: Some(10),
            failures: Some(1),
            ended: None,
            queue: 3,
            backlog: 5,
            limit: Some("application".to_owned()),
            drops: None,
            rejected: 0,
            connects: 0,
        };
        let line = Line {
            direction: Direction::Sent,
            reason: "unread-data".to_owned(),
            cause: Some("close-with-unread-data".to_owned()),
            basis: Basis::Measured,
            count: 7,
        };
        Account {
            ticks: 1,
            status: Some(Status::Critical),
            services: (1..=services).map(service).collect(),
            resets: vec![line],
            ..Account::default()
        }
    }

    #[test]
    fn counters_grow_and_gauges_are_of_now() {
        let metrics = Metrics::default();
        metrics.window(&account(1), &[]);
        metrics.window(&account(0), &[]);
        let text = metrics.text().unwrap();
        let reset = "rstdoctor_resets_total{direction=\"sent\",reason=\"unread-data\",cause=\"close-with-unread-data\",basis=\"measured\"} 14";
        assert!(text.contains(reset), "{text}");
        assert!(text.contains("rstdoctor_service_attempts_total{") && !text.contains("rstdoctor_listener_backlog{"));
        assert!(text.contains("rstdoctor_verdict{status=\"critical\"} 1"));
        assert!(!text.contains("rstdoctor_listener_drops_total{"), "what nobody counted is not 0");
        assert!(metrics.openmetrics().unwrap().ends_with("# EOF\n"));
    }

    #[test]
    fn series_are_bounded_and_names_cannot_break_a_line() {
        let metrics = Metrics::default();
        metrics.window(&account(5_000), &[]);
        let text = metrics.text().unwrap();
        let series = text.lines().filter(|line| line.starts_with("rstdoctor_service_attempts_total{")).count();
        assert_eq!(series, MOST + 1);
        assert!(text.contains("port=\"other\""));
        let rest = text.lines().find(|line| line.starts_with("rstdoctor_service_attempts_total{port=\"other\""));
        assert!(rest.is_some_and(|line| line.ends_with(" 48000")), "{rest:?}");
        for line in text.lines() {
            let named = line.starts_with('#') || line.starts_with("rstdoctor_") || line.starts_with("process_");
            assert!(named && !line.contains('\u{202e}'), "{line:?}");
        }
    }
}
