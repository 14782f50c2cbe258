use super::numbers::conntrack_table_full as numbers;
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify, commands};
use crate::evidence::Evidence;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// The firewall of the host keeps one entry for each connection, TIME_WAIT and UDP included. When
    /// `net.netfilter.nf_conntrack_max` entries are in use, the first packet of any new connection is dropped: in, out and
    /// forwarded. Old, unanswered entries are thrown out early first.
    ///
    /// ## How it shows
    ///
    /// "nf_conntrack: table full, dropping packet" in the kernel log. New connections time out in both directions, old ones
    /// work. No TCP counter moves.
    ///
    /// ## How to confirm
    ///
    /// `sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max`, and `conntrack -S`: drop and early_drop
    /// grow. The numbers belong to one network namespace.
    ///
    /// ## What to change
    ///
    /// Raise nf_conntrack_max together with the hash size. Shorten
    /// `net.netfilter.nf_conntrack_tcp_timeout_established` (5 days by default). Do not track what needs no tracking (NOTRACK).
    ///
    /// ## Look-alikes
    ///
    /// `insert_failed` alone is a race of two packets, mostly UDP. A nearly full table without drops is a risk, not a fault.
    CONNTRACK_TABLE_FULL {
        id: "conntrack-table-full",
        title: "Connection tracking table full",
        explains: ["retransmission-timeout"],
        needs: [Conntrack],
        judge: judge,
    }
}

const MAX: &str = "net.netfilter.nf_conntrack_max";

fn judge(e: &Evidence<'_>) -> Judgement {
    let table = e.conntrack()?;
    if table.max == 0 {
        return Ok(Verdict::RuledOut("connection tracking has no limit here".into()));
    }
    let share = table.count as f64 / table.max as f64;
    let moved = |column: &str| e.conntrack_moved(column).unwrap_or(0);
    let (dropped, evicted) = (moved("drop"), moved("early_drop"));
    let full = share >= numbers::FULL;
    let numbers = format!("{} of {}", words::thousands(table.count), words::thousands(table.max));
    let (state, severity, confidence, summary) = if dropped > 0 {
        (
            State::Active,
            Severity::Critical,
            if full { numbers::DROPPED_AND_FULL } else { numbers::DROPPED },
            format!("connection tracking dropped {}: the table is full ({numbers})", words::counted(dropped, "packet")),
        )
    } else if evicted > 0 && full {
        (
            State::Active,
            Severity::Warning,
            numbers::EVICTED,
            format!(
                "the connection tracking table is full ({numbers}): {} thrown out early",
                words::thousands(evicted)
            ),
        )
    } else if share >= numbers::NEAR {
        (
            State::Risk,
            Severity::Warning,
            numbers::NEARLY_FULL,
            format!("the connection tracking table is nearly full ({numbers})"),
        )
    } else {
        match table.stat.as_ref().and_then(|stat| stat.get("drop")) {
            Some(before) if before > 0 => (
                State::Past,
                Severity::Info,
                numbers::PAST,
                format!("connection tracking dropped {} since boot", words::counted(before, "packet")),
            ),
            _ => {
                return Ok(Verdict::RuledOut(format!(
                    "{} of the connection tracking table used",
                    words::percent(share)
                )));
            }
        }
    };
    let impact = Impact { events: dropped, per_s: e.rate(dropped), unit: "packets" };
    let count = EvidenceItem::value(
        "conntrack",
        "nf_conntrack_count",
        table.count as f64,
        format!("{numbers} entries in use ({})", words::percent(share)),
    );
    let mut finding = Finding::new(state, severity, confidence, impact, summary).subject(Subject::host());
    // The table may have been full for a moment; `drop` also counts a failed allocation.
    finding = if dropped > 0 && !full { finding.against(count) } else { finding.evidence(count) };
    for (column, what) in [("drop", "new connections dropped"), ("early_drop", "old entries thrown out for new ones")] {
        let delta = moved(column);
        if delta > 0 {
            finding = finding.evidence(EvidenceItem {
                delta: Some(delta as f64),
                per_s: Some(e.rate(delta)),
                ..EvidenceItem::fact("conntrack", column, format!("{column} +{}: {what}", words::thousands(delta)))
            });
        }
    }
    if table.stat.is_none() {
        finding = finding.against(EvidenceItem::fact(
            "conntrack",
            "drop",
            "whether packets are dropped is not visible: /proc/net/stat/nf_conntrack",
        ));
    }
    Ok(Verdict::Found(vec![remedies(e, finding, table.max)]))
}

fn remedies(e: &Evidence<'_>, finding: Finding, max: u64) -> Finding {
    let wanted = max.saturating_mul(2);
    // A quarter as many buckets as entries was the kernel's own ratio until 5.15; longer chains cost CPU.
    let buckets = wanted / 4;
    let hash_size = ShellCommand::new("echo").arg(buckets).into_file("/sys/module/nf_conntrack/parameters/hashsize");
    let option = ShellCommand::new("echo")
        .arg(("options nf_conntrack hashsize=", buckets))
        .into_file("/etc/modprobe.d/nf_conntrack.conf");
    let finding = finding.remedy(
        Remedy::new(
            "Raise the limit and the hash size, on the host itself; an entry costs about 320 bytes",
            Verify::by(ShellCommand::new("conntrack -S"), "shows drop= flat"),
        )
        .command(commands::set_sysctl(MAX, wanted).and(hash_size))
        .persist(commands::keep_sysctl(MAX, wanted).and(option)),
    );
    match e.sysctl_number("net.netfilter.nf_conntrack_tcp_timeout_established") {
        Ok(timeout) if timeout > 86_400 => finding.remedy(Remedy::sysctl(
            format!(
                "Forget dead connections sooner: after a day of silence instead of {}",
                words::seconds(std::time::Duration::from_secs(timeout))
            ),
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            86_400,
            "nf_conntrack_count falls within a day",
        )),
        _ => finding,
    }
    .remedy(Remedy::new("See who holds the entries", "the leading address is expected").command(
        commands::most_frequent(
            ShellCommand::new("conntrack -L").quiet().pipe(ShellCommand::new("grep -o").arg("src=[^ ]*")),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, tracked};

    fn case(count: u64, moved: &[(&str, u64)]) -> Case {
        Case::new().conntrack(tracked(count, 1000, &[]), tracked(count, 1000, moved))
    }

    #[test]
    fn drops_at_a_full_table_are_found() {
        let finding = case(1000, &[("drop", 50), ("early_drop", 50)]).finding(&CONNTRACK_TABLE_FULL);
        assert_eq!((finding.state, finding.severity, finding.impact.events), (State::Active, Severity::Critical, 50));
        assert!(finding.confidence >= 0.95);
        assert!(finding.remedies[0].line().as_deref().is_some_and(|c| c.contains("nf_conntrack_max=2000")));
    }

    #[test]
    fn insert_failed_alone_is_a_race_and_no_full_table() {
        assert!(matches!(case(300, &[("insert_failed", 50)]).judge(&CONNTRACK_TABLE_FULL), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_nearly_full_table_is_a_risk_and_half_of_it_is_fine() {
        assert_eq!(case(920, &[]).finding(&CONNTRACK_TABLE_FULL).state, State::Risk);
        assert!(matches!(case(500, &[]).judge(&CONNTRACK_TABLE_FULL), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn a_full_table_without_statistics_says_what_it_cannot_see() {
        let mut table = tracked(990, 1000, &[]);
        table.stat = None;
        let finding = Case::new().conntrack(table.clone(), table).finding(&CONNTRACK_TABLE_FULL);
        assert_eq!((finding.state, finding.counter_evidence.len()), (State::Risk, 1));
    }

    #[test]
    fn without_connection_tracking_nothing_is_claimed() {
        assert_eq!(Case::new().judge(&CONNTRACK_TABLE_FULL).expect_err("no table").source, "conntrack");
    }
}
