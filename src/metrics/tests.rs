use super::bounded::MOST;
use super::*;
use crate::cause::Severity;
use crate::diagnosis::diagnose;
use crate::diagnosis::rank::Ranked;
use crate::evidence::ledger::Basis;
use crate::history::{Direction, Line, Service};
use crate::observation::testing::{Case, group, process};
use crate::source::socket_dump::{GroupKind, SocketDump};
use crate::timeline::testing::{Row, follows, ranked};

const WINDOW: u64 = 2_000;

fn service(port: usize) -> Service {
    Service {
        place: Place {
            at: format!("port {port}"),
            port: u16::try_from(port).ok(),
            process: Some("we\"ird\n\u{202e}\\".to_owned()),
            ..Place::default()
        },
        address: "0.0.0.0".to_owned(),
        attempts: Some(10),
        failures: Some(1),
        queue: 3,
        backlog: 5,
        limit: Some("application".to_owned()),
        ..Service::default()
    }
}

fn idle(port: usize) -> Service {
    Service { attempts: Some(0), failures: Some(0), drops: Some(0), queue: 0, ..service(port) }
}

fn account(services: impl IntoIterator<Item = Service>) -> Account {
    let line = Line {
        direction: Direction::Sent,
        reason: "unread-data".to_owned(),
        cause: Some("close-with-unread-data".to_owned()),
        basis: Basis::Measured,
        count: 7,
    };
    Account {
        from: 1_000_000,
        until: 1_000_000 + WINDOW,
        ticks: 1,
        status: Some(Status::Critical),
        services: services.into_iter().collect(),
        resets: vec![line],
        ..Account::default()
    }
}

/// Of one for whom the tracepoints tell of resets.
fn seen() -> Diagnosis {
    diagnose(Case::new().tracepoints().view())
}

fn take(metrics: &mut Metrics, services: impl IntoIterator<Item = Service>) {
    metrics.window(&seen(), &account(services), &[]);
}

/// The values of a family whose labels hold this text.
fn values(metrics: &Metrics, name: &str, labels: &str) -> Vec<u64> {
    let text = metrics.text().unwrap();
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let told = lines.filter(|line| line.contains(labels));
    told.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn counters_grow_and_gauges_are_of_now() {
    let mut metrics = Metrics::default();
    take(&mut metrics, [service(1)]);
    take(&mut metrics, []);
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
    let mut metrics = Metrics::default();
    take(&mut metrics, (1..=5_000).map(service));
    let attempts = values(&metrics, "rstdoctor_service_attempts_total", "");
    assert_eq!(attempts.len(), MOST + 1);
    assert_eq!(values(&metrics, "rstdoctor_service_attempts_total", "port=\"other\",process=\"other\""), [48_000]);
    assert_eq!(values(&metrics, "rstdoctor_listeners_left_out", ""), [4_800]);
    assert_eq!(values(&metrics, "rstdoctor_listener_accept_queue", "").len(), MOST);
    for line in metrics.text().unwrap().lines() {
        let named = line.starts_with('#') || line.starts_with("rstdoctor_") || line.starts_with("process_");
        assert!(named && !line.contains('\u{202e}'), "{line:?}");
    }
}

/// More are busy than can be named, each time in another order: none takes the name of another.
#[test]
fn each_service_stays_where_it_is_counted() {
    let mut metrics = Metrics::default();
    for round in 0..10 {
        let mut services: Vec<_> = (1..=MOST + 20).map(|port| Service { attempts: Some(2), ..service(port) }).collect();
        services.rotate_left(round * 20);
        take(&mut metrics, services);
    }
    let mut attempts = values(&metrics, "rstdoctor_service_attempts_total", "");
    attempts.sort_unstable();
    assert_eq!((attempts.len(), attempts.pop()), (MOST + 1, Some(20 * 20)));
    assert!(attempts.iter().all(|own| *own == 20), "{attempts:?}");
}

#[test]
fn who_is_idle_for_long_gives_way_to_who_is_busy_and_not_before() {
    let mut metrics = Metrics::default();
    take(&mut metrics, (1..=MOST).map(idle));
    let all = || (1..=MOST).map(idle).chain([service(999)]);
    take(&mut metrics, all());
    assert!(values(&metrics, "rstdoctor_service_attempts_total", "port=\"999\"").is_empty());
    (0..300).for_each(|_| take(&mut metrics, all()));
    assert!(!values(&metrics, "rstdoctor_service_attempts_total", "port=\"999\"").is_empty());
    assert_eq!(values(&metrics, "rstdoctor_listener_backlog", "").len(), MOST);
}

/// A full queue: nothing was a connection that could end, and all of it is lost.
#[test]
fn attempts_that_a_listener_loses_have_failed() {
    let mut metrics = Metrics::default();
    let lost = Service { attempts: Some(0), failures: Some(0), drops: Some(686), ..service(8080) };
    take(&mut metrics, [lost, service(80)]);
    let of = |port: &str| {
        let of = |name: &str| values(&metrics, name, &format!("port=\"{port}\""));
        (of("rstdoctor_service_attempts_total"), of("rstdoctor_service_failures_total"))
    };
    assert_eq!(of("8080"), (vec![686], vec![686]));
    assert_eq!(of("80"), (vec![10], vec![1]));
}

#[test]
fn that_none_failed_is_told_only_where_it_can_be_seen() {
    let mut metrics = Metrics::default();
    let blind = diagnose(Case::new().view());
    metrics.window(&blind, &account([Service { failures: Some(0), ..service(9000) }]), &[]);
    assert_eq!(values(&metrics, "rstdoctor_service_attempts_total", "port=\"9000\""), [10]);
    assert!(values(&metrics, "rstdoctor_service_failures_total", "").is_empty());
    assert!(values(&metrics, "rstdoctor_resets_total", "reason=\"process-exit\"").is_empty());
    take(&mut metrics, [idle(9000)]);
    assert_eq!(values(&metrics, "rstdoctor_service_failures_total", "port=\"9000\""), [0]);
    assert_eq!(values(&metrics, "rstdoctor_resets_total", "reason=\"process-exit\""), [0]);
}

/// Every listener in every scrape, and the longest queue for longer than between two scrapes.
#[test]
fn a_queue_is_told_for_a_minute_and_its_listener_as_long_as_it_is_there() {
    let mut metrics = Metrics::default();
    let queue = |metrics: &Metrics| values(metrics, "rstdoctor_listener_accept_queue", "port=\"80\"");
    take(&mut metrics, [Service { queue: 6, ..idle(80) }]);
    for _ in 0..29 {
        take(&mut metrics, [Service { queue: 2, ..idle(80) }]);
        assert_eq!(queue(&metrics), [6]);
    }
    take(&mut metrics, [idle(80)]);
    assert_eq!(queue(&metrics), [2]);
    (0..30).for_each(|_| take(&mut metrics, [idle(80)]));
    assert_eq!(queue(&metrics), [0]);
    assert_eq!(values(&metrics, "rstdoctor_listener_backlog", "port=\"80\""), [5]);
    take(&mut metrics, []);
    assert!(queue(&metrics).is_empty());
}

#[test]
fn a_limit_that_nobody_knows_the_setter_of_is_told_as_that() {
    let mut metrics = Metrics::default();
    take(&mut metrics, [Service { limit: None, ..service(80) }, service(81)]);
    assert_eq!(values(&metrics, "rstdoctor_listener_backlog_limited_by", "limit=\"unknown\""), [1]);
    assert_eq!(values(&metrics, "rstdoctor_listener_backlog_limited_by", "limit=\"application\""), [1]);
}

/// node_exporter has process_* of its own, and refuses a file that tells the same.
#[test]
fn the_textfile_has_names_of_its_own_only() {
    let metrics = Metrics::default();
    metrics.own(Own { cpu_s: Some(1.5), resident_bytes: Some(9), open_fds: Some(4), ..Own::default() });
    let (file, served) = (metrics.textfile().unwrap(), metrics.text().unwrap());
    for name in ["process_cpu_seconds_total 1.5", "process_resident_memory_bytes 9", "process_open_fds 4"] {
        let has = |text: &str, name: &str| text.lines().any(|line| line == name);
        assert!(has(&file, &format!("rstdoctor_{name}")) && has(&served, &format!("rstdoctor_{name}")), "{file}");
        assert!(has(&served, name), "{served}");
    }
    let foreign = file.lines().filter(|line| !line.starts_with('#') && !line.starts_with("rstdoctor_"));
    assert_eq!(foreign.count(), 0, "{file}");
}

/// Of one full listener whose owner accepts nothing, with clients on this host: one root, and what follows from it.
#[test]
fn what_follows_from_another_cause_names_it() {
    let called = "127.0.0.1:7100".parse().unwrap();
    let mut waiting = group(GroupKind::Unanswered, 7100, 20, 1, 0);
    waiting.accepted = false;
    waiting.samples.iter_mut().for_each(|sample| sample.peer = called);
    let case = Case::new()
        .counter("TcpExt.ListenOverflows", 0, 90)
        .counter("TcpExt.TCPSynRetrans", 0, 90)
        .counter("Tcp.PassiveOpens", 0, 0)
        .listener("0.0.0.0:7100", 8, 9, 60, &process(41, "api"))
        .listener_drops(90)
        .socket_dump(SocketDump::default(), SocketDump { groups: vec![waiting], ..SocketDump::default() });
    let diagnosis = diagnose(case.view());
    let root_of = |active: &[Active]| -> Vec<String> {
        let mut metrics = Metrics::default();
        metrics.window(&diagnosis, &account([]), active);
        let text = metrics.text().unwrap();
        let told = text.lines().filter(|line| line.contains("cause=\"connect-unanswered\","));
        told.filter_map(|line| Some(line.split_once("because_of=\"")?.1.split_once('"')?.0.to_owned())).collect()
    };
    let mut active = Active::of_window(&diagnosis);
    assert_eq!(root_of(&active), ["accept-loop-stalled"]);
    // Who is told of critical causes only must not be told of a milder root instead.
    let root = active.iter_mut().find(|one| one.key.id == "accept-loop-stalled").expect("the root");
    root.severity = Severity::Info;
    assert_eq!(root_of(&active), [""]);
    active.retain(|one| one.key.id != "accept-loop-stalled");
    assert_eq!(root_of(&active), [""]);
}

/// An alert counts faults: what follows from one is told apart, also where it was seen a tick before what it follows from.
#[test]
fn episodes_that_follow_from_another_are_no_faults_of_their_own() {
    let full = || ranked("accept-queue-overflow", Severity::Critical, 10.0);
    let both = || follows(ranked("accept-loop-stalled", Severity::Critical, 10.0), full());
    let (mut metrics, mut row) = (Metrics::default(), Row::new());
    let mut take = |causes: &[Ranked]| {
        metrics.tick(&row.whole(causes), &account([]));
        let of = |id: &str, root: &str| {
            let labels = format!("cause=\"{id}\",severity=\"critical\",because_of=\"{root}\"");
            values(&metrics, "rstdoctor_episodes_total", &labels).iter().sum::<u64>()
        };
        [
            of("accept-queue-overflow", ""),
            of("accept-loop-stalled", ""),
            of("accept-queue-overflow", "accept-loop-stalled"),
        ]
    };
    take(&[full()]);
    take(&both());
    assert_eq!(take(&both()), [0, 1, 1]);
    assert_eq!(take(&both()), [0, 1, 1], "once");
    (0..10).for_each(|_| {
        take(&[]);
    });
    take(&[full()]);
    assert_eq!(take(&[]), [1, 1, 1], "one by itself is a fault, however short");
}
