//! How bad a number of resets is.
//!
//! No server is without resets: Cloudflare sees a fifth of all new connections reset or time out early. So a count alone
//! is never an alarm. Three questions decide:
//!
//! 1. Are there enough to be more than chance? A prober or a poller makes one or two in a window of seconds.
//! 2. Are they a sizable share of the connections opened in the same window? Keep-alive races and retired pool
//!    connections stay far below 1 %. Connections older than the window can die in it, so the share is taken of whichever
//!    is larger, the connections opened or the resets.
//! 3. Who is hurt? What this host does to its clients on a served port counts in full. What it does as a client (pools,
//!    load generators, monitors end with RST on purpose) is told and is no alarm. What peers do to it (cancelled
//!    browsers, probes) needs far more before it is one.

use super::Severity;
pub use super::numbers::severity::FEW;
use super::numbers::severity::{BY_PEERS, MANY, MOST, OUTAGE_PER_S, REFUSED, REFUSED_PER_S, SIZABLE};
use crate::evidence::Evidence;

/// The events as a share of the connections opened; `None` when nobody counted those.
fn share(e: &Evidence<'_>, events: u64, opened: &str) -> Option<f64> {
    let opened = e.counter(opened).ok()?.delta;
    Some(events as f64 / opened.max(events).max(1) as f64)
}

/// What this host does to clients of a served port.
pub fn to_clients(e: &Evidence<'_>, events: u64) -> Severity {
    match share(e, events, "Tcp.PassiveOpens") {
        _ if events < FEW => Severity::Info,
        Some(share) if share < SIZABLE => Severity::Info,
        Some(share) if share >= MOST && events >= MANY && e.rate(events) >= OUTAGE_PER_S => Severity::Critical,
        _ => Severity::Warning,
    }
}

/// By counters: this host opened at least as many connections as were reset, and accepted none, so that it was the client
/// in all likelihood.
pub fn only_calls(e: &Evidence<'_>, events: u64) -> bool {
    let opened = |name: &str| e.counter(name).map(|reading| reading.delta);
    opened("Tcp.PassiveOpens") == Ok(0) && opened("Tcp.ActiveOpens").is_ok_and(|active| active >= events)
}

/// Connects that are refused, ours or our clients'. They are no part of the connections opened, so the rate decides: a
/// poller asks once a second or less.
pub fn refusals(e: &Evidence<'_>, events: u64) -> Severity {
    if events >= REFUSED && e.rate(events) >= REFUSED_PER_S { Severity::Warning } else { Severity::Info }
}

/// At least a few of the reset connections are older than the window: they were in use. A probe's or a scan's never are.
pub fn in_use(e: &Evidence<'_>, events: u64) -> bool {
    events.saturating_sub(e.moved("Tcp.PassiveOpens") + e.moved("Tcp.ActiveOpens")) >= FEW
}

/// What peers do to this host.
pub fn by_peers(e: &Evidence<'_>, events: u64) -> Severity {
    let opened = e.moved("Tcp.PassiveOpens") + e.moved("Tcp.ActiveOpens");
    let share = events as f64 / opened.max(events).max(1) as f64;
    if in_use(e, events) || (events >= MANY && share >= BY_PEERS) { Severity::Warning } else { Severity::Info }
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Status, diagnose};
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;

    /// A busy host where every counter that the causes read exists and most stood at an old total.
    fn host(moved: &[(&str, u64)]) -> Case {
        let names = [
            "Tcp.OutRsts",
            "Tcp.EstabResets",
            "Tcp.AttemptFails",
            "Tcp.PassiveOpens",
            "Tcp.ActiveOpens",
            "TcpExt.ListenOverflows",
            "TcpExt.ListenDrops",
            "TcpExt.EmbryonicRsts",
            "TcpExt.TCPAbortOnClose",
            "TcpExt.TCPAbortOnData",
            "TcpExt.TCPAbortOnTimeout",
            "TcpExt.TCPKeepAlive",
            "TcpExt.TCPTimeouts",
            "TcpExt.TCPChallengeACK",
            "TcpExt.TCPSYNChallenge",
            "TcpExt.PAWSEstab",
        ];
        names.into_iter().fold(Case::new().listener("0.0.0.0:80", 511, 0, 0, &process(4121, "nginx")), |case, name| {
            let delta = moved.iter().find(|(moved, _)| *moved == name).map_or(0, |(_, delta)| *delta);
            // Totals of years; the accept queue has none, because that one is reported as past.
            case.counter(name, if name.contains("Listen") { 0 } else { 90_000 }, delta)
        })
    }

    fn status(case: &Case) -> Status {
        let diagnosis = diagnose(case.view());
        if diagnosis.status != Status::Ok {
            eprintln!("{}", diagnosis.summary);
        }
        diagnosis.status
    }

    const CLIENT: &str = "192.0.2.1:0";
    const SERVED: &str = "10.0.0.9:80";

    /// The patterns of a healthy host, each by counters, and where events show it, by those as well.
    #[test]
    fn a_healthy_host_with_noise_stays_healthy() {
        let open = ("Tcp.PassiveOpens", 300);
        let quiet = [
            ("half-open probes", host(&[("TcpExt.EmbryonicRsts", 6), ("Tcp.AttemptFails", 6)])),
            ("full-handshake probes ended by RST", host(&[("Tcp.EstabResets", 3), ("Tcp.PassiveOpens", 3)])),
            (
                "poller at a closed port",
                host(&[("Tcp.OutRsts", 30), ("Tcp.AttemptFails", 30), ("Tcp.ActiveOpens", 30)]),
            ),
            ("cancelling clients", host(&[open, ("Tcp.EstabResets", 12)])),
            ("late RSTs after both FINs", host(&[open]).received(40, TcpState::LastAck, [SERVED, CLIENT])),
            ("load generator", host(&[("Tcp.ActiveOpens", 300), ("TcpExt.TCPAbortOnData", 300), ("Tcp.OutRsts", 300)])),
            (
                "retired TLS pool",
                host(&[open, ("TcpExt.TCPAbortOnClose", 6), ("Tcp.OutRsts", 6), ("Tcp.EstabResets", 6)]),
            ),
            ("vanished peers", host(&[open, ("TcpExt.TCPAbortOnTimeout", 4), ("Tcp.EstabResets", 4)])),
            (
                "keep-alive race",
                host(&[open, ("Tcp.OutRsts", 2)]).sent(
                    2,
                    "TCP_TIMEWAIT_SOCKET",
                    Some(TcpState::TimeWait),
                    [SERVED, CLIENT],
                    None,
                ),
            ),
            ("old totals", host(&[])),
            ("old totals, with tracepoints", host(&[]).tracepoints()),
        ];
        for (name, case) in quiet {
            assert_eq!(status(&case), Status::Ok, "{name}");
        }
    }

    /// A port scan to one who sees no events: no alarm, and nobody can say that all is well.
    #[test]
    fn what_the_counters_do_not_explain_is_neither_healthy_nor_an_alarm() {
        assert_eq!(status(&host(&[("Tcp.OutRsts", 400)])), Status::Unknown);
    }

    #[test]
    fn a_real_fault_of_the_same_family_is_found() {
        let pid = || Some(task(4121, "nginx"));
        let opened = ("Tcp.PassiveOpens", 20);
        let faults = [
            (
                "unread data",
                host(&[opened, ("TcpExt.TCPAbortOnClose", 20), ("Tcp.OutRsts", 20), ("Tcp.EstabResets", 20)]),
            ),
            ("linger 0", host(&[opened, ("TcpExt.TCPAbortOnData", 20), ("Tcp.OutRsts", 20), ("Tcp.EstabResets", 20)])),
            (
                "linger 0, named",
                host(&[opened, ("Tcp.OutRsts", 20)]).sent(
                    20,
                    "TCP_STATE",
                    Some(TcpState::Close),
                    [SERVED, CLIENT],
                    pid(),
                ),
            ),
            ("refused", host(&[("Tcp.OutRsts", 20)]).sent(20, "NO_SOCKET", None, ["10.0.0.9:9200", CLIENT], None)),
            ("upstream down", host(&[("Tcp.AttemptFails", 30), ("Tcp.ActiveOpens", 60)])),
            ("pool reset", host(&[("Tcp.EstabResets", 20), ("Tcp.ActiveOpens", 2)])),
            ("server gone", host(&[("Tcp.OutRsts", 8)]).died(4121).stopped_listening(80)),
        ];
        for (name, case) in faults {
            assert_ne!(status(&case), Status::Ok, "{name}");
        }
    }

    #[test]
    fn totals_alone_accuse_nobody() {
        let mut case = host(&[]);
        case.host.totals_only = true;
        assert_eq!(status(&case), Status::Ok);
        assert!(diagnose(case.view()).causes.is_empty());
    }

    #[test]
    fn the_ledger_takes_the_kernels_reasons_and_shows_the_rest() {
        let case = host(&[("Tcp.OutRsts", 25)]).sent(20, "NO_SOCKET", None, ["10.0.0.9:9200", CLIENT], None);
        let sent = diagnose(case.view()).ledger.sent;
        assert_eq!((sent.count_of("no-listener"), sent.unexplained()), (20, Some(5)));
        assert_eq!(sent.lines[0].known_from, "kernel reason");
    }
}
