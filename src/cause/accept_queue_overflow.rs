use std::collections::HashSet;

use super::numbers::accept_queue_overflow as numbers;
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict, Verify, busy, queue,
};
use crate::evidence::Evidence;
use crate::evidence::backlog::{BindingLimit, binding_limit, known_server};
use crate::evidence::service::Service;
use crate::observation::delta::Reading;
use crate::value::shell::ShellCommand;
use crate::value::words;

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
        explains: ["syn-queue-overflow", "client-gave-up", "retransmission-timeout"],
        needs: [Netstat, Listeners],
        judge: judge,
    }
}

const UNIT: &str = "connection attempts";

fn judge(e: &Evidence<'_>) -> Judgement {
    let overflows = e.counter("TcpExt.ListenOverflows")?;
    let services = e.services();
    let full_now = |service: &&Service<'_>| service.listens_now() && service.worst().last.is_full();
    if overflows.delta == 0 {
        let services = services?;
        let full: Vec<_> = services.iter().filter(full_now).map(|service| about_to_overflow(e, service)).collect();
        if full.is_empty() && overflows.after > 0 {
            return Ok(Verdict::Found(vec![past(e, &overflows)]));
        }
        return Ok(Verdict::from_findings(full, "no accept queue is full, ListenOverflows did not move"));
    }
    // The host counts what was lost, whether or not the listeners can be seen.
    let services = services.unwrap_or_default();
    let hit = hit(services);
    if hit.is_empty() {
        return Ok(Verdict::Found(vec![nowhere_seen(e, &overflows)]));
    }
    let all_drops: u64 = hit.iter().filter_map(|service| service.drops()).sum();
    let alone = hit.len() == 1;
    let mut findings: Vec<_> = hit
        .iter()
        .map(|service| {
            let lost = match service.drops() {
                _ if alone => overflows.delta,
                Some(drops) if all_drops > 0 => {
                    (u128::from(overflows.delta) * u128::from(drops) / u128::from(all_drops)) as u64
                }
                _ => overflows.delta / hit.len() as u64,
            };
            overflowing(e, service, &overflows, lost, alone)
        })
        .collect();
    let is_hit: HashSet<_> = hit.iter().map(|service| (service.address, service.port)).collect();
    let others = services.iter().filter(full_now).filter(|s| !is_hit.contains(&(s.address, s.port)));
    findings.extend(others.map(|service| about_to_overflow(e, service)));
    Ok(Verdict::Found(findings))
}

/// The listeners that may have lost what ListenOverflows counted. SK_MEMINFO_DROPS is an upper bound and also grows for
/// other reasons: it can only clear a listener, and share out the loss among those that were full.
fn hit<'e, 'a>(services: &'e [Service<'a>]) -> Vec<&'e Service<'a>> {
    let full = |service: &&Service<'_>| service.worst().full_samples > 0;
    let dropped = |service: &&Service<'_>| service.drops() != Some(0);
    let certain: Vec<_> = services.iter().filter(full).filter(dropped).collect();
    if !certain.is_empty() {
        return certain;
    }
    services.iter().filter(|service| service.drops().is_some_and(|drops| drops > 0)).collect()
}

fn overflowing(e: &Evidence<'_>, service: &Service<'_>, overflows: &Reading, lost: u64, alone: bool) -> Finding {
    let worst = service.worst();
    let seen_full = worst.full_samples > 0;
    let nobody = service.owners.is_empty();
    let confidence = match (seen_full, alone) {
        _ if nobody && (seen_full || alone) => numbers::OWNER_NOT_SEEN,
        (true, true) => numbers::SEEN_FULL,
        (true, false) => numbers::SEVERAL_FULL,
        (false, true) => numbers::NOT_SEEN_FULL,
        (false, false) => numbers::SEVERAL_NOT_SEEN_FULL,
    };
    let per_s = e.rate(lost);
    let taken = e.harm_of_service(service.port).attempts;
    let severity = match taken.is_some_and(|taken| taken >= lost.saturating_mul(numbers::RARE)) {
        true => Severity::Info,
        false if per_s >= numbers::CRITICAL_PER_S => Severity::Critical,
        false => Severity::Warning,
    };
    let summary = format!(
        "{} accepts more slowly than clients connect: {} lost in {}, retries included",
        service.who(),
        words::counted(lost, "connection attempt"),
        words::seconds(e.window()),
    );
    let share = if alone { "all of it on this listener" } else { "shared among the listeners that were full" };
    let mut finding =
        Finding::new(State::Active, severity, confidence, Impact { events: lost, per_s, unit: UNIT }, summary)
            .subject(Subject::listener(service).counted(lost))
            .evidence(queue::length(service))
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
    if nobody {
        finding = finding.against(EvidenceItem::fact(
            "owners",
            "process",
            "whose listener it is is not seen: it may have stopped, or have no file descriptor left",
        ));
    }
    if !seen_full {
        finding = finding.against(EvidenceItem::fact(
            "listeners",
            "recv_q",
            "not full in any sample: full only for moments, or lost elsewhere",
        ));
    }
    with_limit_and_remedies(e, service, finding)
}

fn about_to_overflow(e: &Evidence<'_>, service: &Service<'_>) -> Finding {
    let summary = format!("the accept queue of {} is full: the next connection is lost", service.who());
    let impact = Impact { events: 0, per_s: 0.0, unit: UNIT };
    let finding = Finding::new(State::Risk, Severity::Warning, numbers::FULL_NOW, impact, summary)
        .subject(Subject::listener(service))
        .evidence(queue::length(service));
    with_limit_and_remedies(e, service, finding)
}

fn past(e: &Evidence<'_>, overflows: &Reading) -> Finding {
    let now = if e.totals_only() { "" } else { ", none now" };
    let summary =
        format!("{} lost to full accept queues since boot{now}", words::counted(overflows.after, "connection attempt"));
    let impact = Impact { events: 0, per_s: 0.0, unit: UNIT };
    Finding::new(State::Past, Severity::Info, numbers::PAST, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::counter(
            overflows,
            format!("ListenOverflows {} since boot{now}", words::thousands(overflows.after)),
        ))
        .remedy(Remedy::new(
            "Catch it in the act: scan again, or record, while clients see slow connects",
            "ListenOverflows grows while it happens",
        ))
}

fn nowhere_seen(e: &Evidence<'_>, overflows: &Reading) -> Finding {
    let why = match e.services() {
        Ok(_) => {
            "no listener was full in any sample: bursts shorter than the sampling, or the listener is gone".to_owned()
        }
        Err(missing) => format!("which listener cannot be seen: {}", missing.reason),
    };
    let summary = format!(
        "{} lost to a full accept queue, on a listener not seen full",
        words::counted(overflows.delta, "connection attempt")
    );
    let impact = Impact { events: overflows.delta, per_s: overflows.per_s, unit: UNIT };
    Finding::new(State::Active, Severity::Warning, numbers::NOWHERE_SEEN, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::counter(overflows, format!("ListenOverflows +{}", words::thousands(overflows.delta))))
        .against(EvidenceItem::fact("listeners", "recv_q", why))
        .remedy(
            Remedy::new("Scan for longer, so that the burst is caught", "the listener is named")
                .command(ShellCommand::new("rstdoctor scan --duration 30s")),
        )
}

/// Names the limit that binds, and what to change for this very program.
fn with_limit_and_remedies(e: &Evidence<'_>, service: &Service<'_>, mut finding: Finding) -> Finding {
    let backlog = u64::from(service.worst().last.backlog);
    let verify_longer = |wanted: u64| {
        Verify::by(queue::listed(service), format!("shows Send-Q {wanted}, and rstdoctor scan shows no overflow"))
    };
    if let Ok(somaxconn) = e.sysctl_number("net.core.somaxconn") {
        let limit = binding_limit(backlog, somaxconn, &service.owners);
        let server = known_server(&service.owners);
        let program = server.map_or("the application", |server| server.name.as_str());
        finding.binding_limit = limit;
        let why = match limit {
            Some(BindingLimit::Application) if server.is_some_and(|s| s.backlog.default == Some(backlog)) => {
                format!(
                    "backlog {backlog} is {program}'s default, somaxconn is {somaxconn}: {program}'s own backlog is the limit"
                )
            }
            Some(BindingLimit::Application) => {
                format!("the application's own backlog of {backlog} is the limit, somaxconn is {somaxconn}")
            }
            Some(BindingLimit::Somaxconn) => {
                format!("the backlog is {backlog} and so is net.core.somaxconn: the sysctl is the limit")
            }
            Some(BindingLimit::Stale) => {
                format!(
                    "somaxconn is {somaxconn} now, but the listener still has {backlog}: it is older than the raised sysctl"
                )
            }
            None => {
                format!(
                    "its backlog of {backlog} is the limit, somaxconn is {somaxconn}: either the application asked for no more, \
                     or it began to listen while somaxconn was {backlog}"
                )
            }
        };
        finding = finding.evidence(EvidenceItem::value("sysctl", "net.core.somaxconn", somaxconn as f64, why));
        let wanted = if matches!(limit, None | Some(BindingLimit::Application)) && somaxconn > backlog {
            somaxconn
        } else {
            (somaxconn * 4).max(4096)
        };
        finding = match limit {
            Some(BindingLimit::Application) => {
                let finding = match wanted > somaxconn {
                    true => finding.remedy(
                        Remedy::sysctl(
                            "Raise somaxconn first: it caps any backlog",
                            "net.core.somaxconn",
                            wanted,
                            Verify::by(ShellCommand::new("sysctl net.core.somaxconn"), format!("shows {wanted}")),
                        )
                        .restart(Restart::Service),
                    ),
                    false => finding,
                };
                finding.remedy(queue::longer_backlog(service, server, wanted, verify_longer(wanted)))
            }
            Some(BindingLimit::Somaxconn) => finding
                .remedy(
                    Remedy::sysctl(
                        format!("Raise somaxconn, then restart {program}: the limit is fixed when it calls listen()"),
                        "net.core.somaxconn",
                        wanted,
                        verify_longer(
                            server.and_then(|s| s.backlog.default).map_or(wanted, |default| default.min(wanted)),
                        ),
                    )
                    .restart(Restart::Service),
                )
                .remedy(queue::longer_backlog(service, server, wanted, verify_longer(wanted))),
            // A longer backlog needs the restart, too, and helps in both cases.
            None => finding.remedy(queue::longer_backlog(service, server, wanted, verify_longer(wanted))).remedy(
                Remedy::new(
                    format!(
                        "If it asks for more already, restart {program}: somaxconn was lower when it began to listen"
                    ),
                    Verify::by(queue::listed(service), format!("shows a Send-Q above {backlog}")),
                )
                .restart(Restart::Service)
                .command_if(queue::restart_command(&service.owners)),
            ),
            Some(BindingLimit::Stale) => finding.remedy(
                Remedy::new(
                    format!("Restart {program}, so that it calls listen() again under the raised somaxconn"),
                    Verify::by(queue::listed(service), format!("shows a Send-Q above {backlog}")),
                )
                .restart(Restart::Service)
                .command_if(queue::restart_command(&service.owners)),
            ),
        };
    }
    if let Some(item) = queue::hidden_owner(e, service) {
        finding = finding.against(item);
    }
    finding = capacity_first(e, service, finding);
    if e.sysctl_number("net.ipv4.tcp_abort_on_overflow") == Ok(1) {
        finding = finding.remedy(Remedy::sysctl(
            "Until then, let clients retry instead of resetting them",
            "net.ipv4.tcp_abort_on_overflow",
            0,
            Verify::flat("TcpExtEmbryonicRsts"),
        ));
    }
    finding
}

/// A queue that is always full is too slow a server, which a longer queue does not help; one that is full for moments is a burst.
fn capacity_first(e: &Evidence<'_>, service: &Service<'_>, mut finding: Finding) -> Finding {
    let slow = busy::slow_accept(e, service);
    let (worst, share) = (service.worst(), service.full_share());
    // What a burst leaves behind accept() takes up at once: a queue that is full again and again is as often shorter in between.
    let stays = share * e.window().as_secs_f64() >= numbers::STAYS_FULL_S
        && worst.full_samples >= worst.drained.saturating_mul(numbers::FULL_OF_SHORTER);
    let always = worst.samples >= queue::ENOUGH_SAMPLES && (share >= numbers::ALWAYS_FULL || stays);
    if !always {
        return finding.remedy(slow);
    }
    let capacity = busy::capacity(known_server(&service.owners), service);
    // The server's own setting, then what it does instead; a longer queue comes last.
    let first = capacity.into_iter().chain([slow]);
    finding.remedies = first.chain(std::mem::take(&mut finding.remedies)).collect();
    finding.evidence_if(busy::pace(e, service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};

    fn overflow(full_samples: u32, overflows: u64) -> Case {
        Case::new()
            .counter("TcpExt.ListenOverflows", 1000, overflows)
            .sysctl("net.core.somaxconn", "4096")
            .listener(
                "0.0.0.0:8080",
                511,
                if full_samples > 0 { 512 } else { 3 },
                full_samples,
                &process(4121, "nginx"),
            )
            .listener_drops(overflows as u32)
    }

    #[test]
    fn one_lost_among_thousands_is_a_note_and_one_of_a_few_is_not() {
        let severity = |taken: u16| {
            let ends = ["10.0.0.9:8080", "10.0.3.7:40000"];
            overflow(2, 1).destroyed_sockets(taken, ends, 0, 0).finding(&ACCEPT_QUEUE_OVERFLOW).severity
        };
        assert_eq!(severity(3_000), Severity::Info);
        assert!(severity(30) <= Severity::Warning);
    }

    #[test]
    fn a_full_queue_with_growing_overflows_is_named_with_its_limit() {
        let finding = overflow(60, 312).finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.confidence >= 0.9);
        assert_eq!(finding.binding_limit, Some(BindingLimit::Application));
        assert_eq!(finding.subjects[0].pid, Some(4121));
        let lines: Vec<_> = finding.remedies.iter().filter_map(|remedy| remedy.line()).collect();
        assert_eq!(lines[0], "worker_processes auto;", "always full: too slow, not too short");
        assert!(lines.iter().any(|line| line.starts_with("listen 8080 backlog=4096;")), "{lines:?}");
    }

    #[test]
    fn a_queue_that_filled_up_and_stays_full_is_no_burst() {
        let first = |drained: u32| {
            let finding = overflow(24, 3).queue(3, 3, drained).finding(&ACCEPT_QUEUE_OVERFLOW);
            finding.remedies.iter().find_map(|remedy| remedy.line()).unwrap_or_default()
        };
        assert_eq!(first(2), "worker_processes auto;", "1.2 of 3 s, and hardly ever shorter");
        assert!(first(12).starts_with("listen 8080 backlog=4096;"), "{}", first(12));
    }

    /// What the kernel counts as accepted, it counts for all listeners together.
    #[test]
    fn how_long_one_waits_is_not_told_of_a_queue_that_only_others_speak_for() {
        let told = |opens: u64, drained: u32| {
            let case = overflow(60, 312).counter("Tcp.PassiveOpens", 0, opens).queue(512, 512, drained);
            let evidence = case.finding(&ACCEPT_QUEUE_OVERFLOW).evidence;
            evidence.into_iter().map(|item| item.text).find(|text| text.contains("one waits"))
        };
        assert_eq!(told(468, 0), None, "it accepts nothing");
        assert_eq!(told(90_000, 9), None, "0.0 s is no news");
        let slow = told(3, 9).expect("it accepts");
        assert!(slow.starts_with("1 connection a second was accepted on this host"), "{slow}");
        let usual = told(468, 9).expect("it accepts");
        assert!(usual.starts_with("156 connections a second were accepted"), "{usual}");
        assert!(usual.ends_with("one waits 3.3 s or more"), "{usual}");
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
    fn a_full_queue_that_dropped_nothing_does_not_get_the_loss_of_another() {
        let case = overflow(60, 312)
            .listener_drops(0)
            .listener("0.0.0.0:9090", 128, 20, 0, &process(7, "other"))
            .listener_drops(312);
        let Ok(Verdict::Found(findings)) = case.judge(&ACCEPT_QUEUE_OVERFLOW) else { panic!("nothing found") };
        assert_eq!(
            findings.iter().map(|f| (f.state, f.subjects[0].port)).collect::<Vec<_>>(),
            [(State::Active, Some(9090)), (State::Risk, Some(8080))]
        );
    }

    #[test]
    fn a_loss_is_reported_even_when_listeners_cannot_be_read() {
        let finding = Case::new().counter("TcpExt.ListenOverflows", 0, 9).finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.impact.events), (State::Active, 9));
    }

    #[test]
    fn somaxconn_that_binds_is_raised_and_then_the_application() {
        let case = overflow(9, 312).sysctl("net.core.somaxconn", "511");
        let finding = case.finding(&ACCEPT_QUEUE_OVERFLOW);
        assert_eq!(finding.binding_limit, Some(BindingLimit::Somaxconn));
        assert_eq!(finding.remedies[0].line().as_deref(), Some("sysctl -w net.core.somaxconn=4096"));
        assert!(finding.remedies[1].line().as_deref().is_some_and(|line| line.contains("backlog=4096")));
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        let missing = Case::new().judge(&ACCEPT_QUEUE_OVERFLOW).expect_err("no counter");
        assert_eq!(missing.source, "netstat");
    }
}
