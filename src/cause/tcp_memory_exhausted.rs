use super::numbers::tcp_memory_exhausted as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict};
use crate::evidence::Evidence;
use crate::source::socket_dump::GroupKind;
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// All TCP sockets of the host share `net.ipv4.tcp_mem` (three numbers in pages: low, pressure, high). Above pressure
    /// the kernel shrinks windows and drops received data; above high it resets connections that the application has
    /// closed while data was still queued.
    ///
    /// ## How it shows
    ///
    /// `mem` in /proc/net/sockstat is near the third number of tcp_mem. `TcpExt.TCPMemoryPressures`, `TCPRcvQDrop` and
    /// `TCPAbortOnMemory` grow. "out of memory -- consider tuning tcp_mem" in the kernel log. Connections crawl, then die.
    ///
    /// ## How to confirm
    ///
    /// `grep TCP: /proc/net/sockstat; sysctl net.ipv4.tcp_mem` (pages, mostly of 4 KiB), and `ss -tm` for the largest
    /// Recv-Q and Send-Q.
    ///
    /// ## What to change
    ///
    /// Find the program that does not read, or the peers that do not take their data: they hold the memory. Raise tcp_mem
    /// only if the host has the memory to spare.
    ///
    /// ## Look-alikes
    ///
    /// The limit of orphans moves `TCPAbortOnMemory` too (orphan-limit). `PruneCalled` also grows when a single socket is at
    /// its own rcvbuf: that is no shortage.
    TCP_MEMORY_EXHAUSTED {
        id: "tcp-memory-exhausted",
        title: "TCP memory exhausted",
        explains: [],
        needs: [Netstat, Sockstat],
        judge: judge,
    }
}

/// tcp_mem: low, pressure and high, in pages, of the whole host.
pub(super) fn limits(e: &Evidence<'_>) -> Result<[u64; 3], Missing> {
    let text = e.sysctl("net.ipv4.tcp_mem")?;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().map_err(|_| Missing::new("sysctl", format!("net.ipv4.tcp_mem is not three numbers: {text:?}")))
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let [_, pressure, high] = limits(e)?;
    let used = e.sockstat("TCP.mem")?;
    let aborts = e.counter("TcpExt.TCPAbortOnMemory")?;
    let pressures = e.moved("TcpExt.TCPMemoryPressures");
    let dropped = e.moved("TcpExt.TCPRcvQDrop");
    let share = used as f64 / high.max(1) as f64;
    let (state, severity, confidence) = if used > high || (aborts.delta > 0 && share >= numbers::NEAR) {
        (State::Active, Severity::Critical, numbers::USED_UP)
    } else if used > pressure && dropped > 0 {
        (State::Active, Severity::Warning, numbers::DROPPED)
    } else if pressures > 0 {
        (State::Active, Severity::Warning, numbers::PRESSURE)
    } else if share >= numbers::NEAR || used > pressure {
        (State::Risk, Severity::Warning, numbers::RISK)
    } else {
        return Ok(Verdict::RuledOut(format!("TCP uses {} of its memory", words::percent(share))));
    };
    let summary = if used > high || aborts.delta > 0 {
        format!("TCP has used up the memory of the whole host's limit ({} of it)", words::percent(share))
    } else {
        format!("TCP is short of memory: {} of the host's limit is used", words::percent(share))
    };
    let events = aborts.delta + dropped;
    let impact = Impact { events, per_s: e.rate(events), unit: "resets and dropped segments" };
    let mut finding = Finding::new(state, severity, confidence, impact, summary).subject(Subject::host()).evidence(
        EvidenceItem::value(
            "sockstat",
            "TCP.mem",
            used as f64,
            format!(
                "{} pages used; pressure from {}, limit {}",
                words::thousands(used),
                words::thousands(pressure),
                words::thousands(high)
            ),
        ),
    );
    for (metric, what) in [
        ("TcpExt.TCPAbortOnMemory", "closed connections reset"),
        ("TcpExt.TCPRcvQDrop", "received segments dropped"),
        ("TcpExt.TCPMemoryPressures", "times the pressure mark was passed"),
    ] {
        if let Ok(reading) = e.counter(metric)
            && reading.delta > 0
        {
            let name = metric.trim_start_matches("TcpExt.");
            let text = format!("{name} +{}: {what}", words::thousands(reading.delta));
            finding = finding.evidence(EvidenceItem::counter(&reading, text));
        }
    }
    Ok(Verdict::Found(vec![remedies(who(e, finding), high)]))
}

/// Names the service whose sockets hold the most unread bytes: that one does not read.
fn who(e: &Evidence<'_>, finding: Finding) -> Finding {
    let groups = e.groups(GroupKind::Unread).unwrap_or_default();
    let Some(worst) = groups.iter().max_by_key(|group| group.unread_bytes).filter(|g| g.unread_bytes > 1 << 20) else {
        return finding;
    };
    let holders = e.holders(worst.samples.iter().map(|sample| sample.inode));
    let name = holders.first().map_or("a program that you cannot see".to_owned(), |process| process.label());
    let text = format!("{name} leaves {} MiB unread (port {})", worst.unread_bytes >> 20, worst.port);
    let finding = finding.evidence(EvidenceItem::value("sockets", "unread", worst.unread_bytes as f64, text));
    match holders.first() {
        Some(process) => finding.subject(Subject::process(process)),
        None => finding,
    }
}

/// Connections with the most data queued, by a column of ss.
fn largest(sort: &'static str) -> ShellCommand {
    ShellCommand::new("ss -tnpH").pipe(ShellCommand::new(sort)).pipe(ShellCommand::new("head"))
}

fn remedies(finding: Finding, high: u64) -> Finding {
    let wanted = ((high, " "), (high.saturating_mul(3) / 2, " "), high.saturating_mul(2));
    finding
        .remedy(
            Remedy::new(
                "Find who holds the memory: large Recv-Q is a program that does not read, large Send-Q a peer that does not",
                "mem in /proc/net/sockstat falls",
            )
            .command(largest("sort -k2,2nr").then(largest("sort -k3,3nr"))),
        )
        .remedy(Remedy::sysctl(
            "Raise the limit, if the host has the memory to spare",
            "net.ipv4.tcp_mem",
            wanted,
            "mem stays below the second number",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    fn case(mem: u64) -> Case {
        Case::new()
            .counter("TcpExt.TCPAbortOnMemory", 0, 0)
            .sockstat("TCP.mem", mem)
            .sysctl("net.ipv4.tcp_mem", "10000\t20000\t30000")
    }

    #[test]
    fn above_the_limit_it_is_critical() {
        let finding = case(30_100).counter("TcpExt.TCPAbortOnMemory", 0, 9).finding(&TCP_MEMORY_EXHAUSTED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
    }

    #[test]
    fn aborts_far_from_the_limit_are_not_this() {
        let case = case(50).counter("TcpExt.TCPAbortOnMemory", 0, 60).counter("TcpExt.PruneCalled", 0, 9);
        assert!(matches!(case.judge(&TCP_MEMORY_EXHAUSTED), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn above_the_pressure_mark_it_is_a_risk() {
        assert_eq!(case(21_000).finding(&TCP_MEMORY_EXHAUSTED).state, State::Risk);
    }

    #[test]
    fn without_the_limit_nothing_is_claimed() {
        let case = Case::new().counter("TcpExt.TCPAbortOnMemory", 0, 60).sockstat("TCP.mem", 30_100);
        assert_eq!(case.judge(&TCP_MEMORY_EXHAUSTED).expect_err("no limit").source, "sysctl");
    }
}
