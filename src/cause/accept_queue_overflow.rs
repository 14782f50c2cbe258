use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict};
use crate::backlog::{BindingLimit, binding_limit, known_server};
use crate::delta::Reading;
use crate::evidence::Evidence;
use crate::service::Service;
use crate::words;

cause! {
    /// ## What happens
    ///
    /// A connection that has finished its handshake waits in the accept queue of the listener until the application calls
    /// accept(). When the queue is full, the kernel ignores new SYNs and final ACKs: the client sees slow connects and
    /// timeouts. With `net.ipv4.tcp_abort_on_overflow=1` it answers the final ACK with a RST instead: "Connection reset by
    /// peer" on the client's first read or write. With the default 0, a client whose handshake expired (about 63 s) is
    /// reset at its next data.
    ///
    /// The queue holds min(argument of listen(), `net.core.somaxconn`) + 1 connections, fixed at the time of listen().
    ///
    /// ## How it shows
    ///
    /// `TcpExt.ListenOverflows` grows, once per packet (a client's retries count again), and the listener's Recv-Q is
    /// above its Send-Q. The log of the application shows nothing: it never saw these connections.
    ///
    /// ## How to confirm
    ///
    /// `ss -lnt` shows Recv-Q above Send-Q on the listener while `nstat -az TcpExtListenOverflows` grows.
    ///
    /// ## What to change
    ///
    /// Find out which limit binds. The application's backlog: raise it in its configuration and restart it. somaxconn: raise
    /// the sysctl, then restart the application, because the limit is fixed at listen(). A listener older than a raised
    /// somaxconn: restart it. A longer queue only buys time: find out why accept() is slow.
    ///
    /// ## Look-alikes
    ///
    /// An old total that does not grow any more. A stopped or blocked owner (accept-loop-stalled) and an owner without free
    /// descriptors (fd-exhaustion) fill the queue as well; they rank above this cause. `ListenDrops` without
    /// `ListenOverflows` is not about the accept queue.
    ACCEPT_QUEUE_OVERFLOW {
        id: "accept-queue-overflow",
        title: "Accept queue overflow",
        explains: ["syn-queue-overflow"],
        judge: judge,
    }
}

const UNIT: &str = "connection attempts";

fn judge(e: &Evidence<'_>) -> Judgement {
    let overflows = e.counter("TcpExt.ListenOverflows")?;
    let services = e.services()?;
    if overflows.delta == 0 {
        let full: Vec<_> = services.iter().filter(|s| s.listens_now() && s.worst().last.is_full()).collect();
        if !full.is_empty() {
            return Ok(Verdict::Found(full.into_iter().map(|service| about_to_overflow(e, service)).collect()));
        }
        if overflows.after > 0 {
            return Ok(Verdict::Found(vec![past(&overflows)]));
        }
        return Ok(Verdict::RuledOut("no accept queue is full, ListenOverflows did not move".into()));
    }
    // Drops of a listener are an upper bound and also grow for other reasons, so they only share out what
    // ListenOverflows counted, and only among listeners that dropped something.
    let mut hit: Vec<_> =
        services.iter().filter(|s| s.worst().full_samples > 0 || s.drops().is_some_and(|drops| drops > 0)).collect();
    if hit.iter().any(|service| service.worst().full_samples > 0) {
        hit.retain(|service| service.worst().full_samples > 0);
    }
    if hit.is_empty() {
        return Ok(Verdict::Found(vec![nowhere_seen(&overflows)]));
    }
    let all_drops: u64 = hit.iter().filter_map(|service| service.drops()).sum();
    let alone = hit.len() == 1;
    Ok(Verdict::Found(
        hit.iter()
            .map(|service| {
                let lost = match service.drops() {
                    _ if alone => overflows.delta,
                    Some(drops) if all_drops > 0 => overflows.delta * drops / all_drops,
                    _ => overflows.delta / hit.len() as u64,
                };
                overflowing(e, service, &overflows, lost, alone)
            })
            .collect(),
    ))
}

fn overflowing(e: &Evidence<'_>, service: &Service<'_>, overflows: &Reading, lost: u64, alone: bool) -> Finding {
    let worst = service.worst();
    let seen_full = worst.full_samples > 0;
    let confidence = match (seen_full, alone) {
        (true, true) => 0.98,
        (true, false) => 0.95,
        (false, true) => 0.85,
        (false, false) => 0.7,
    };
    let per_s = e.rate(lost);
    let severity = if per_s >= 1.0 { Severity::Critical } else { Severity::Warning };
    let summary = format!(
        "{} accepts more slowly than clients connect: {} lost in {}",
        words::who(service),
        words::counted(lost, "connection attempt"),
        words::seconds(e.window()),
    );
    let share = if alone { "all of it on this listener" } else { "shared among the listeners that were full" };
    let mut finding =
        Finding::new(State::Active, severity, confidence, Impact { events: lost, per_s, unit: UNIT }, summary)
            .subject(Subject::listener(service).counted(lost))
            .evidence(queue(service))
            .evidence(EvidenceItem::counter(
                overflows,
                format!(
                    "ListenOverflows +{}, {share} (a client's retries count again)",
                    words::thousands(overflows.delta)
                ),
            ));
    if e.sysctl_number("net.ipv4.tcp_abort_on_overflow") == Ok(1) {
        finding = finding.evidence(EvidenceItem::value(
            "sysctl",
            "net.ipv4.tcp_abort_on_overflow",
            1.0,
            "tcp_abort_on_overflow=1: clients get a reset instead of a slow connect",
        ));
    }
    with_limit_and_remedies(e, service, finding)
}

fn queue(service: &Service<'_>) -> EvidenceItem {
    let worst = service.worst();
    let text = if worst.full_samples > 0 {
        format!(
            "accept queue full ({} of {}) in {} of {} samples",
            worst.max_recv_q, worst.last.backlog, worst.full_samples, worst.samples
        )
    } else {
        format!(
            "accept queue at most {} of {} in {} samples: full only for moments",
            worst.max_recv_q, worst.last.backlog, worst.samples
        )
    };
    EvidenceItem::value("listeners", "recv_q", f64::from(worst.max_recv_q), text)
}

fn about_to_overflow(e: &Evidence<'_>, service: &Service<'_>) -> Finding {
    let summary = format!("the accept queue of {} is full: the next connection is lost", words::who(service));
    let impact = Impact { events: 0, per_s: 0.0, unit: UNIT };
    let finding = Finding::new(State::Risk, Severity::Warning, 0.9, impact, summary)
        .subject(Subject::listener(service))
        .evidence(queue(service));
    with_limit_and_remedies(e, service, finding)
}

fn past(overflows: &Reading) -> Finding {
    let summary = format!(
        "{} lost to full accept queues since boot, none now",
        words::counted(overflows.after, "connection attempt")
    );
    let impact = Impact { events: 0, per_s: 0.0, unit: UNIT };
    Finding::new(State::Past, Severity::Info, 0.9, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::counter(
            overflows,
            format!("ListenOverflows {} since boot, +0 now", words::thousands(overflows.after)),
        ))
        .remedy(Remedy::new(
            "Catch it in the act: run rstdoctor watch, or record, while clients see slow connects",
            "ListenOverflows grows while it happens",
        ))
}

fn nowhere_seen(overflows: &Reading) -> Finding {
    let summary = format!(
        "{} lost to a full accept queue, on a listener not seen full",
        words::counted(overflows.delta, "connection attempt")
    );
    let impact = Impact { events: overflows.delta, per_s: overflows.per_s, unit: UNIT };
    Finding::new(State::Active, Severity::Warning, 0.8, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::counter(overflows, format!("ListenOverflows +{}", words::thousands(overflows.delta))))
        .against(EvidenceItem::fact(
            "listeners",
            "recv_q",
            "no listener was full in any sample: bursts shorter than the sampling, or the listener is gone",
        ))
        .remedy(
            Remedy::new("Scan for longer, so that the burst is caught", "the listener is named")
                .command("rstdoctor scan --duration 30s"),
        )
}

/// Names the limit that binds, and what to change for this very program.
fn with_limit_and_remedies(e: &Evidence<'_>, service: &Service<'_>, mut finding: Finding) -> Finding {
    let backlog = u64::from(service.worst().last.backlog);
    let verify_longer = |wanted: u64| {
        format!("ss -lnt 'sport = :{}' shows Send-Q {wanted}, and rstdoctor scan shows no overflow", service.port)
    };
    if let Ok(somaxconn) = e.sysctl_number("net.core.somaxconn") {
        let limit = binding_limit(backlog, somaxconn, &service.owners);
        let server = known_server(&service.owners);
        let program = server.map_or("the application", |server| server.name.as_str());
        finding.binding_limit = Some(limit);
        let why = match limit {
            BindingLimit::Application if server.is_some_and(|s| s.backlog.default == Some(backlog)) => {
                format!(
                    "backlog {backlog} is {program}'s default, somaxconn is {somaxconn}: {program}'s own backlog is the limit"
                )
            }
            BindingLimit::Application => {
                format!(
                    "the application asked for a backlog of {backlog}, somaxconn is {somaxconn}: the application's backlog is the limit"
                )
            }
            BindingLimit::Somaxconn => {
                format!("the backlog is {backlog} and so is net.core.somaxconn: the sysctl is the limit")
            }
            BindingLimit::Stale => {
                format!(
                    "somaxconn is {somaxconn} now, but the listener still has {backlog}: it is older than the raised sysctl"
                )
            }
        };
        finding = finding.evidence(EvidenceItem::value("sysctl", "net.core.somaxconn", somaxconn as f64, why));
        let wanted = if limit == BindingLimit::Application && somaxconn > backlog {
            somaxconn
        } else {
            (somaxconn * 4).max(4096)
        };
        finding = match limit {
            BindingLimit::Application => finding.remedy(longer_backlog(service, wanted, verify_longer(wanted))),
            BindingLimit::Somaxconn => finding.remedy(
                Remedy::sysctl(
                    format!("Raise somaxconn, then restart {program}: the limit is fixed when it calls listen()"),
                    "net.core.somaxconn",
                    wanted,
                    verify_longer(server.and_then(|s| s.backlog.default).map_or(wanted, |default| default.min(wanted))),
                )
                .restart(Restart::Service),
            ),
            BindingLimit::Stale => finding.remedy(
                Remedy::new(
                    format!("Restart {program}, so that it calls listen() again under the raised somaxconn"),
                    format!("ss -lnt 'sport = :{}' shows a Send-Q above {backlog}", service.port),
                )
                .restart(Restart::Service)
                .command_if(restart_command(service)),
            ),
        };
    }
    finding.remedy(slow_accept(e, service))
}

fn longer_backlog(service: &Service<'_>, wanted: u64, verify: String) -> Remedy {
    let fill = |line: &str| {
        line.replace("{backlog}", &wanted.to_string())
            .replace("{port}", &service.port.to_string())
            .replace("{address}", &service.endpoint())
    };
    match known_server(&service.owners) {
        Some(server) => match &server.backlog.setting {
            Some(setting) => Remedy::new(format!("Raise the backlog of {}", server.name), verify)
                .command(format!("{}    # {}", fill(&setting.line), setting.place))
                .restart(setting.restart.into()),
            None => Remedy::new(
                format!("{} has no setting for its backlog: put less load on one listener", server.name),
                verify,
            )
            .restart(Restart::Service),
        },
        None => Remedy::new(
            format!("Raise the backlog that the program passes to listen() to {wanted}, in its configuration or code"),
            verify,
        )
        .restart(Restart::Service),
    }
}

fn restart_command(service: &Service<'_>) -> Option<String> {
    let unit = service.owners.iter().find_map(|process| process.unit.as_deref())?;
    unit.ends_with(".service").then(|| format!("systemctl restart {unit}"))
}

fn slow_accept(e: &Evidence<'_>, service: &Service<'_>) -> Remedy {
    let verify = "Recv-Q of the listener stays near 0 in ss -lnt";
    let busiest = service
        .owners
        .iter()
        .filter_map(|process| Some((process, e.cpu_share(process.pid)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    match busiest {
        Some((process, share)) if share >= 0.9 => Remedy::new(
            format!("Find out why accept is slow: {} used {:.0} % of a CPU", words::process(process), share * 100.0),
            verify,
        )
        .command(format!("perf top -p {}", process.pid)),
        Some((process, share)) => Remedy::new(
            format!(
                "Find out why accept is slow: {} used only {:.0} % of a CPU, so it waits for something",
                words::process(process),
                share * 100.0
            ),
            verify,
        )
        .command(format!("cat /proc/{}/stack /proc/{}/wchan", process.pid, process.pid)),
        None => Remedy::new("Find out why accept is slow: a longer queue only buys time", verify),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, process};
    use super::*;

    fn overflow(full_samples: u32, overflows: u64) -> Case {
        Case::new().counter("TcpExt.ListenOverflows", 1000, overflows).sysctl("net.core.somaxconn", "4096").listener(
            "0.0.0.0:8080",
            511,
            if full_samples > 0 { 512 } else { 3 },
            full_samples,
            &process(4121, "nginx"),
        )
    }

    #[test]
    fn a_full_queue_with_growing_overflows_is_named_with_its_limit() {
        let finding = overflow(60, 312).finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.confidence >= 0.9);
        assert_eq!(finding.binding_limit, Some(BindingLimit::Application));
        assert_eq!(finding.subjects[0].pid, Some(4121));
        let command = finding.remedies[0].command.as_deref().unwrap_or_default();
        assert!(command.starts_with("listen 8080 backlog=4096;"), "{command}");
    }

    #[test]
    fn an_old_total_is_past_and_no_alarm() {
        let finding = overflow(0, 0).finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.severity), (State::Past, Severity::Info));
    }

    #[test]
    fn a_full_queue_that_nobody_connects_to_is_a_risk() {
        let finding = overflow(60, 0).finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!(finding.state, State::Risk);
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        let missing = Case::new().judge(&ACCEPT_QUEUE_OVERFLOW).expect_err("no counter");
        assert_eq!(missing.source, "netstat");
    }
}
