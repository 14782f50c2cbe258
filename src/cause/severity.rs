//! How bad a number of resets is: the one table of it.
//!
//! No server is without resets: Cloudflare sees a fifth of all new connections reset or time out early. So a count alone is
//! never an alarm, and neither is a share of what the whole host does: a small service may fail altogether beside a large one.
//! Harm is judged where it happens, by the share of the connections of that service, or to that destination, which failed, and
//! by how sure that share is ([`crate::evidence::harm`]):
//!
//! | who is hurt | warning | critical |
//! |---|---|---|
//! | clients of a served port, by this host | 2 of 2; 3 or more, surely above 1.5 % | surely above 40 %, or 20 or more and surely above 10 % |
//! | programs of this host, by a destination | the same | 20 or more, surely above 40 % |
//! | this host, by clients that reset it | 20 or more, surely above 30 %, or connections older than the window | never |
//! | whoever asks for a closed port | 10 or more in 3 s (of a shorter window in proportion, 5 or more), 2 per second; one peer, 3 times or more apart, of this host at least every 6 s | 60 or more, 20 per second |
//!
//! "Surely" is the lower end of the interval in which the share lies with 95 % certainty. Where nobody counted the connections
//! of a place, the share is taken of all connections that the host opened, whose thresholds are higher.
//!
//! In a row of windows (`watch`, `agent`) what one window leaves open is judged by those of the last half minute together
//! (`evidence/recent.rs`).

use super::Severity;
use super::numbers::severity as numbers;
pub use super::numbers::severity::{FEW, FEWEST, MOST};
use crate::evidence::Evidence;
use crate::evidence::harm::Harm;

/// With what failed by this cause in the windows before, where this one says too little, or says it by few failures, and all together
/// are as bad or worse: of a row of short windows each may hold one failure of a service that fails altogether.
pub fn lately(e: &Evidence<'_>, cause: &'static str, harm: Harm) -> Harm {
    let alone = to_clients(e, &harm);
    if alone == Severity::Critical || alone == Severity::Warning && harm.failures >= FEW {
        return harm;
    }
    let together = Harm { lately: e.lately(cause, &harm), ..harm };
    if to_clients(e, &together) <= alone { together } else { harm }
}

/// What this host does to clients of a served port.
pub fn to_clients(e: &Evidence<'_>, harm: &Harm) -> Severity {
    match harm.surely() {
        None => of_host(e, harm.failures, "Tcp.PassiveOpens"),
        Some(low) if harm.in_all == 2 && low >= numbers::ALL_OF_TWO => Severity::Warning,
        Some(_) if harm.in_all.max(harm.failed_lately()) < numbers::FEWEST => Severity::Info,
        Some(low) if low >= numbers::MOST => Severity::Critical,
        Some(low) if low >= numbers::MUCH && harm.failed_lately() >= numbers::MANY => Severity::Critical,
        Some(low) if low >= numbers::SIZABLE => Severity::Warning,
        Some(_) => Severity::Info,
    }
}

/// What a destination, or the path to it, does to programs of this host. They may be pools and pollers, which try again.
pub fn to_callers(e: &Evidence<'_>, harm: &Harm) -> Severity {
    match to_clients(e, harm) {
        Severity::Critical if harm.failed_lately() < numbers::MANY || harm.surely() < Some(numbers::MOST) => {
            Severity::Warning
        }
        severity => severity,
    }
}

/// The events as a share of all connections that the host opened, where those of the place are not known: by counters.
pub fn of_host(e: &Evidence<'_>, events: u64, opened: &str) -> Severity {
    let share = e.counter(opened).ok().map(|opened| events as f64 / opened.delta.max(events).max(1) as f64);
    match share {
        _ if events < FEW => Severity::Info,
        Some(share) if share < numbers::SIZABLE_OF_HOST => Severity::Info,
        Some(share)
            if share >= numbers::MOST_OF_HOST && events >= numbers::MANY && e.rate(events) >= numbers::OUTAGE_PER_S =>
        {
            Severity::Critical
        }
        _ => Severity::Warning,
    }
}

/// By counters: this host opened at least as many connections as were reset, and accepted none, so that it was the client
/// in all likelihood.
pub fn only_calls(e: &Evidence<'_>, events: u64) -> bool {
    let opened = |name: &str| e.counter(name).map(|reading| reading.delta);
    opened("Tcp.PassiveOpens") == Ok(0) && opened("Tcp.ActiveOpens").is_ok_and(|active| active >= events)
}

/// Connects to a closed port, of peers that come once: all of them fail, so the rate decides.
pub fn refusals(e: &Evidence<'_>, events: u64) -> Severity {
    let enough = numbers::REFUSED as f64 * (e.window().as_secs_f64() / numbers::REFUSED_IN_S).min(1.0);
    match e.rate(events) {
        rate if events >= numbers::REFUSED_OUTAGE && rate >= numbers::REFUSED_OUTAGE_PER_S => Severity::Critical,
        rate if events >= FEW && events as f64 >= enough && rate >= numbers::REFUSED_PER_S => Severity::Warning,
        _ => Severity::Info,
    }
}

/// At least a few of the reset connections are older than the window: they were in use. A probe's or a scan's never are.
pub fn in_use(e: &Evidence<'_>, events: u64) -> bool {
    events.saturating_sub(e.moved("Tcp.PassiveOpens") + e.moved("Tcp.ActiveOpens")) >= FEW
}

/// What clients do to this host.
pub fn by_clients(e: &Evidence<'_>, harm: &Harm) -> Severity {
    let most = match harm.surely() {
        Some(low) => low >= numbers::BY_CLIENTS,
        None => share_of_all(e, harm.failures) >= numbers::BY_PEERS_OF_HOST,
    };
    if in_use(e, harm.failures) || (harm.failures >= numbers::MANY && most) {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// What peers do to this host, by counters.
pub fn by_peers(e: &Evidence<'_>, events: u64) -> Severity {
    let most = share_of_all(e, events) >= numbers::BY_PEERS_OF_HOST;
    if in_use(e, events) || (events >= numbers::MANY && most) { Severity::Warning } else { Severity::Info }
}

fn share_of_all(e: &Evidence<'_>, events: u64) -> f64 {
    let opened = e.moved("Tcp.PassiveOpens").saturating_add(e.moved("Tcp.ActiveOpens"));
    events as f64 / opened.max(events).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::Severity;
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
                host(&[("Tcp.OutRsts", 30), ("Tcp.AttemptFails", 30), ("Tcp.ActiveOpens", 300)]),
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
        // A poller at a closed port, or a program whose every connect fails.
        let all = [("Tcp.OutRsts", 30), ("Tcp.AttemptFails", 30), ("Tcp.ActiveOpens", 30)];
        assert_eq!(status(&host(&all)), Status::Unknown);
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
    fn totals_alone_accuse_nobody_and_clear_nobody() {
        let mut case = host(&[]);
        case.host.totals_only = true;
        assert_eq!(status(&case), Status::Unknown, "nobody knows when they grew");
        let diagnosis = diagnose(case.view());
        assert!(diagnosis.causes.is_empty());
        assert!(diagnosis.ledger.sent.total.is_err(), "nothing was counted, which is not none");
    }

    #[test]
    fn the_ledger_takes_the_kernels_reasons_and_shows_the_rest() {
        let case = host(&[("Tcp.OutRsts", 25)]).sent(20, "NO_SOCKET", None, ["10.0.0.9:9200", CLIENT], None);
        let sent = diagnose(case.view()).ledger.sent;
        assert_eq!((sent.count_of("no-listener"), sent.unexplained()), (20, Some(5)));
        assert_eq!(sent.lines[0].known_from, "kernel reason");
    }

    /// nginx on port 80 with 3,000 connections, a small service on 9000; `failed` closes with unread data on `port`.
    fn two_services(port: &str, failed: u16, small: u16) -> Case {
        let ends = [format!("10.0.0.9:{port}"), CLIENT.to_owned()];
        host(&[("Tcp.PassiveOpens", 3000), ("Tcp.OutRsts", u64::from(failed))])
            .listener("0.0.0.0:9000", 511, 0, 0, &process(977, "docker-proxy"))
            .destroyed_sockets(3000, [SERVED, "10.0.3.7:40000"], 0, 0)
            .destroyed_sockets(small, ["10.0.0.9:9000", "10.0.3.7:40000"], 0, 0)
            .sent(
                failed,
                "TCP_ABORT_ON_CLOSE",
                Some(TcpState::Close),
                [&ends[0], &ends[1]],
                Some(task(977, "docker-proxy")),
            )
    }

    #[test]
    fn a_small_service_of_which_all_fails_is_not_hidden_by_a_large_one() {
        let diagnosis = diagnose(two_services("9000", 3, 3).view());
        assert_eq!(diagnosis.status, Status::Critical);
        let said = "docker-proxy (pid 977) on port 9000 closed all 3 connections with unread data";
        assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
    }

    #[test]
    fn a_few_of_a_large_service_are_a_note_with_their_cause() {
        let diagnosis = diagnose(two_services("80", 3, 0).view());
        assert_eq!(diagnosis.status, Status::Ok);
        let first = &diagnosis.causes[0];
        assert_eq!((first.id, first.finding.severity), ("close-with-unread-data", Severity::Info));
        assert!(first.finding.summary.contains("closed 3 of 3,000 connections (0.1 %)"), "{}", first.finding.summary);
    }

    #[test]
    fn a_twentieth_of_a_service_is_a_warning_and_one_of_three_is_chance() {
        assert_eq!(status(&two_services("9000", 20, 420)), Status::Warning);
        assert_eq!(status(&two_services("9000", 1, 3)), Status::Ok);
        assert_eq!(status(&two_services("9000", 2, 4)), Status::Ok);
        assert_eq!(status(&two_services("9000", 2, 2)), Status::Warning, "all that there were");
    }
}
