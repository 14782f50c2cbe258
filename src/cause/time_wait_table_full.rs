use super::numbers::time_wait_table_full as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify, commands};
use crate::evidence::Evidence;
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// The side that closes first remembers the connection in TIME_WAIT for 60 s. When `net.ipv4.tcp_max_tw_buckets` are in
    /// use, the kernel closes without it. If the peer then still sends its FIN or data, nobody knows the connection and the
    /// answer is a RST.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPTimeWaitOverflow` grows; "TCP: time wait bucket table overflow" in the kernel log. The peer reads
    /// "Connection reset by peer" at the end of a connection.
    ///
    /// ## How to confirm
    ///
    /// `tw` in /proc/net/sockstat is at `sysctl net.ipv4.tcp_max_tw_buckets`, and `nstat -az TcpExtTCPTimeWaitOverflow`
    /// grows.
    ///
    /// ## What to change
    ///
    /// Raise tcp_max_tw_buckets: an entry costs about 250 bytes. Keep connections alive instead of opening new ones.
    ///
    /// ## Look-alikes
    ///
    /// A large number of TIME_WAIT below the limit is normal and harmless. Ports used up towards one destination
    /// (ephemeral-ports-exhausted) show at the caller as "Cannot assign requested address".
    TIME_WAIT_TABLE_FULL {
        id: "time-wait-table-full",
        title: "TIME_WAIT table full",
        explains: ["stale-connection"],
        needs: [Netstat, Sockstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let overflows = e.counter("TcpExt.TCPTimeWaitOverflow")?;
    let used = e.sockstat("TCP.tw");
    let limit = e.sysctl_number("net.ipv4.tcp_max_tw_buckets");
    let share = match (&used, &limit) {
        (Ok(used), Ok(limit)) => Some(*used as f64 / (*limit).max(1) as f64),
        _ => None,
    };
    let near = share.is_some_and(|share| share >= numbers::NEAR);
    let (state, severity, confidence, summary) = if overflows.delta > 0 {
        (
            State::Active,
            Severity::Warning,
            if near { numbers::OVERFLOWED_AND_FULL } else { numbers::OVERFLOWED },
            format!("the TIME_WAIT table is full: {} closed without it", words::counted(overflows.delta, "connection")),
        )
    } else if near {
        (
            State::Risk,
            Severity::Warning,
            numbers::NEARLY_FULL,
            format!("the TIME_WAIT table is nearly full ({})", words::percent(share.unwrap_or(1.0))),
        )
    } else if overflows.after > 0 {
        (
            State::Past,
            Severity::Info,
            numbers::PAST,
            format!("the TIME_WAIT table was full {} times since boot", words::thousands(overflows.after)),
        )
    } else if share.is_none() {
        let unknown = || Missing::new("sockstat", "the number of TIME_WAIT is unknown");
        return Err(used.err().or(limit.err()).unwrap_or_else(unknown));
    } else {
        return Ok(Verdict::RuledOut(format!(
            "{} of the TIME_WAIT table used, it did not overflow",
            words::percent(share.unwrap_or_default())
        )));
    };
    let impact = Impact { events: overflows.delta, per_s: overflows.per_s, unit: "connections" };
    let mut finding = Finding::new(state, severity, confidence, impact, summary).subject(Subject::host());
    if overflows.after > 0 {
        let text = match overflows.delta {
            0 => format!("TCPTimeWaitOverflow {} since boot", words::thousands(overflows.after)),
            delta => format!("TCPTimeWaitOverflow +{}", words::thousands(delta)),
        };
        finding = finding.evidence(EvidenceItem::counter(&overflows, text));
    }
    if let (Ok(used), Ok(limit)) = (&used, &limit) {
        let text =
            format!("{} in TIME_WAIT, tcp_max_tw_buckets is {}", words::thousands(*used), words::thousands(*limit));
        let item = EvidenceItem::value("sockstat", "TCP.tw", *used as f64, text);
        // Without memory for an entry the kernel counts the same (net/ipv4/tcp_minisocks.c tcp_time_wait).
        finding = if overflows.delta > 0 && !near { finding.against(item) } else { finding.evidence(item) };
    }
    Ok(Verdict::Found(vec![remedies(finding, limit.unwrap_or(0))]))
}

fn remedies(finding: Finding, limit: u64) -> Finding {
    finding
        .remedy(Remedy::sysctl(
            "Raise the limit; 100,000 entries cost about 25 MB",
            "net.ipv4.tcp_max_tw_buckets",
            limit.saturating_mul(2).max(65_536),
            Verify::flat("TcpExtTCPTimeWaitOverflow"),
        ))
        .remedy(
            Remedy::new("See which port opens so many short connections, and keep them alive there", "tw falls")
                .command(commands::most_frequent(
                    ShellCommand::new("ss -tanH state time-wait")
                        .pipe(ShellCommand::new("awk").arg("{print $3}"))
                        .pipe(ShellCommand::new("sed").arg("s/.*://")),
                )),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    fn case(overflows: u64, tw: u64) -> Case {
        Case::new()
            .counter("TcpExt.TCPTimeWaitOverflow", 0, overflows)
            .sockstat("TCP.tw", tw)
            .sysctl("net.ipv4.tcp_max_tw_buckets", "65536")
    }

    #[test]
    fn an_overflow_at_the_limit_is_found() {
        let finding = case(45, 65_536).finding(&TIME_WAIT_TABLE_FULL);
        assert_eq!(finding.state, State::Active);
        assert!(finding.confidence >= 0.9);
        assert_eq!(finding.remedies[0].line().as_deref(), Some("sysctl -w net.ipv4.tcp_max_tw_buckets=131072"));
    }

    #[test]
    fn tens_of_thousands_of_time_wait_are_healthy() {
        assert!(matches!(case(0, 45_000).judge(&TIME_WAIT_TABLE_FULL), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn an_overflow_far_from_the_limit_is_less_sure() {
        let finding = case(45, 10).finding(&TIME_WAIT_TABLE_FULL);
        assert!(finding.confidence < 0.9 && !finding.counter_evidence.is_empty());
    }

    #[test]
    fn without_the_number_nothing_is_claimed() {
        let case = Case::new().counter("TcpExt.TCPTimeWaitOverflow", 0, 0);
        assert_eq!(case.judge(&TIME_WAIT_TABLE_FULL).expect_err("no sockstat").source, "sockstat");
    }
}
