use super::numbers::orphan_limit as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify};
use crate::evidence::Evidence;
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// An orphan is a connection that the application has closed while the kernel still has data to deliver or waits for
    /// the last ACKs. Above `net.ipv4.tcp_max_orphans` (of the whole host) the kernel gives such connections up with a
    /// RST: the peer loses the end of the answer.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPAbortOnMemory` grows. "too many orphaned sockets" in the kernel log. The peer reads "Connection reset by
    /// peer" near the end of a response.
    ///
    /// ## How to confirm
    ///
    /// `orphan` in /proc/net/sockstat is near `sysctl net.ipv4.tcp_max_orphans`, while `nstat -az TcpExtTCPAbortOnMemory`
    /// grows. An orphan that waits long counts twice or four times.
    ///
    /// ## What to change
    ///
    /// Find out whose peers are slow or gone: let the application shut down its side and read to the end before it closes.
    /// Raise tcp_max_orphans if there is memory; an orphan can hold up to 64 KiB.
    ///
    /// ## Look-alikes
    ///
    /// TCP's memory limit moves the same counter (tcp-memory-exhausted): then `mem` in sockstat is near the third number of
    /// tcp_mem. Many TIME_WAIT are no orphans.
    ORPHAN_LIMIT {
        id: "orphan-limit",
        title: "Too many orphaned sockets",
        explains: [],
        needs: [Netstat, Sockstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let aborts = e.counter("TcpExt.TCPAbortOnMemory")?;
    let orphans = e.sockstat("TCP.orphan");
    let limit = e.sysctl_number("net.ipv4.tcp_max_orphans");
    let share = match (&orphans, &limit) {
        (Ok(orphans), Ok(limit)) if *limit > 0 => Some(*orphans as f64 / *limit as f64),
        _ => None,
    };
    if aborts.delta > 0 {
        let memory = memory_share(e);
        // Either limit moves the counter, so the one that is far away points to the other.
        let confidence = match (share, memory) {
            (_, Some(memory)) if memory >= numbers::REACHED && share.is_none_or(|share| share < numbers::NEAR) => {
                return Ok(Verdict::RuledOut("TCP's memory limit aborted them, not the number of orphans".into()));
            }
            (Some(share), _) if share >= numbers::REACHED => numbers::AT_LIMIT,
            (Some(share), _) if share >= numbers::POSSIBLE => numbers::NEAR_LIMIT,
            (Some(_), Some(memory)) if memory < numbers::FAR_FROM_MEMORY => numbers::NOT_MEMORY,
            (Some(_), _) => numbers::EITHER,
            (None, _) if e.moved("TcpExt.TCPMemoryPressures") > 0 => numbers::SHORT_OF_MEMORY,
            (None, _) => numbers::LIMIT_UNSEEN,
        };
        let summary = format!(
            "{} closed connections were reset before their data was delivered: too many orphans",
            words::thousands(aborts.delta)
        );
        let impact = Impact { events: aborts.delta, per_s: aborts.per_s, unit: "resets" };
        let mut finding = Finding::new(State::Active, Severity::Critical, confidence, impact, summary)
            .subject(Subject::host())
            .evidence(EvidenceItem::counter(&aborts, format!("TCPAbortOnMemory +{}", words::thousands(aborts.delta))));
        finding = match share {
            Some(_) => finding.evidence(numbers(e)),
            None => finding.against(EvidenceItem::fact(
                "sysctl",
                "net.ipv4.tcp_max_orphans",
                "the limit is not visible from this network namespace: TCP's memory limit looks the same",
            )),
        };
        return Ok(Verdict::Found(vec![remedies(e, finding)]));
    }
    let Some(share) = share else { return Err(no_limit(limit, orphans)) };
    if share >= numbers::NEAR {
        let summary = format!("{} of the limit of orphaned sockets is used", words::percent(share));
        let impact = Impact { events: 0, per_s: 0.0, unit: "resets" };
        let finding = Finding::new(State::Risk, Severity::Warning, numbers::RISK, impact, summary)
            .subject(Subject::host())
            .evidence(numbers(e));
        return Ok(Verdict::Found(vec![remedies(e, finding)]));
    }
    if aborts.after > 0 {
        let summary = format!(
            "{} reset since boot at the limit of orphans or of TCP memory",
            words::counted(aborts.after, "closed connection")
        );
        let impact = Impact { events: 0, per_s: 0.0, unit: "resets" };
        let finding = Finding::new(State::Past, Severity::Info, numbers::PAST, impact, summary)
            .subject(Subject::host())
            .evidence(EvidenceItem::counter(
                &aborts,
                format!("TCPAbortOnMemory {} since boot", words::thousands(aborts.after)),
            ))
            .evidence(numbers(e));
        return Ok(Verdict::Found(vec![remedies(e, finding)]));
    }
    Ok(Verdict::RuledOut(format!("{} of tcp_max_orphans used, none was aborted", words::percent(share))))
}

fn no_limit(limit: Result<u64, Missing>, orphans: Result<u64, Missing>) -> Missing {
    match limit.err().or(orphans.err()) {
        Some(missing) => missing,
        None => Missing::new("sysctl", "net.ipv4.tcp_max_orphans is 0"),
    }
}

/// TCP memory as a share of its hard limit; `None` when either is unknown.
fn memory_share(e: &Evidence<'_>) -> Option<f64> {
    let limit = super::tcp_memory_exhausted::limits(e).ok()?[2];
    Some(e.sockstat("TCP.mem").ok()? as f64 / limit.max(1) as f64)
}

fn numbers(e: &Evidence<'_>) -> EvidenceItem {
    let orphans = e.sockstat("TCP.orphan").unwrap_or(0);
    let limit = e.sysctl_number("net.ipv4.tcp_max_orphans").unwrap_or(0);
    let text = format!("{} orphans now, tcp_max_orphans is {}", words::thousands(orphans), words::thousands(limit));
    EvidenceItem::value("sockstat", "TCP.orphan", orphans as f64, text)
}

fn remedies(e: &Evidence<'_>, finding: Finding) -> Finding {
    let finding = finding.remedy(
        Remedy::new(
            "Find whose peers do not take their data: port and peer of closing connections",
            "orphan in /proc/net/sockstat falls",
        )
        .command(
            ShellCommand::new("ss -tnoH state fin-wait-1 state last-ack state closing")
                .pipe(ShellCommand::new("head -50")),
        ),
    );
    // The sysctl exists in the first network namespace only.
    match e.sysctl_number("net.ipv4.tcp_max_orphans") {
        Ok(limit) => finding.remedy(Remedy::sysctl(
            "Raise the limit; each orphan may hold 64 KiB of memory",
            "net.ipv4.tcp_max_orphans",
            limit.saturating_mul(2).max(8192),
            Verify::flat("TcpExtTCPAbortOnMemory"),
        )),
        Err(_) => finding.remedy(
            Remedy::new(
                "Look at the limit on the host itself, outside this namespace",
                "both numbers are visible there",
            )
            .command(
                ShellCommand::new("sysctl net.ipv4.tcp_max_orphans")
                    .then(ShellCommand::new("grep TCP: /proc/net/sockstat")),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    fn case(aborts: u64, orphans: u64, mem: u64) -> Case {
        Case::new()
            .counter("TcpExt.TCPAbortOnMemory", 0, aborts)
            .sockstat("TCP.orphan", orphans)
            .sockstat("TCP.mem", mem)
            .sysctl("net.ipv4.tcp_max_orphans", "1000")
            .sysctl("net.ipv4.tcp_mem", "10000\t20000\t30000")
    }

    #[test]
    fn aborts_at_the_limit_are_found() {
        let finding = case(60, 990, 5).finding(&ORPHAN_LIMIT);
        assert_eq!((finding.state, finding.impact.events), (State::Active, 60));
        assert!(finding.confidence >= 0.9);
    }

    #[test]
    fn aborts_at_the_memory_limit_are_not_this() {
        assert!(matches!(case(60, 10, 30_500).judge(&ORPHAN_LIMIT), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn many_orphans_without_aborts_are_a_risk_and_few_are_fine() {
        assert_eq!(case(0, 600, 5).finding(&ORPHAN_LIMIT).state, State::Risk);
        assert!(matches!(case(0, 100, 5).judge(&ORPHAN_LIMIT), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn without_the_limit_a_quiet_counter_does_not_clear_it() {
        let case = Case::new().counter("TcpExt.TCPAbortOnMemory", 0, 0).sockstat("TCP.orphan", 5);
        assert_eq!(case.judge(&ORPHAN_LIMIT).expect_err("no limit").source, "sysctl");
        let aborted = Case::new().counter("TcpExt.TCPAbortOnMemory", 0, 60).sockstat("TCP.orphan", 5);
        assert!(aborted.finding(&ORPHAN_LIMIT).confidence < 0.7);
    }
}
