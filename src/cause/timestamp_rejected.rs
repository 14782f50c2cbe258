use super::numbers::timestamp_rejected as numbers;
use super::wording;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, commands};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// Segments carry a TCP timestamp older than one already seen on the connection; the kernel drops them (PAWS, RFC 7323).
    /// In SYN_SENT it answers a wrong echo with a RST. Cause: hosts behind one NAT with clocks of their own, a proxy or
    /// load balancer that mixes connections.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.PAWSEstab` (open connections), `TcpExt.PAWSActive` (own connects) or `TcpExt.PAWSPassive` grow.
    ///
    /// ## How to confirm
    ///
    /// `nstat -az | grep PAWS`; a capture shows a `TS val` that jumps back on one connection.
    ///
    /// ## What to change
    ///
    /// Repair the device that rewrites timestamps. As a test, switch them off: `net.ipv4.tcp_timestamps=0`.
    ///
    /// ## Look-alikes
    ///
    /// Old duplicates after a detour are dropped rightly, a few at a time.
    TIMESTAMP_REJECTED {
        id: "timestamp-rejected",
        title: "Timestamp rejected (PAWS)",
        explains: [],
        needs: [Window, Netstat],
        judge: judge,
    }
}

/// Not TCPACKSkippedPAWS: it counts ACKs that were held back, for segments counted here already.
const COUNTERS: [(&str, &str); 3] = [
    ("TcpExt.PAWSEstab", "segments of open connections dropped for an old timestamp"),
    ("TcpExt.PAWSActive", "answers to own connects with a wrong timestamp echo, reset"),
    ("TcpExt.PAWSPassive", "SYNs dropped for an old timestamp"),
];

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    // PAWSPassive left with tcp_tw_recycle in 4.12 and may be absent.
    let estab = e.counter("TcpExt.PAWSEstab")?;
    let moved: Vec<_> = COUNTERS
        .iter()
        .filter_map(|(name, meaning)| Some((e.counter(name).ok()?, *meaning)))
        .filter(|(reading, _)| reading.delta > 0)
        .collect();
    let resets: u64 =
        e.resets_of(TIMESTAMP_REJECTED.id, Direction::Sent).map_or(0, |groups| groups.iter().map(|g| g.count).sum());
    let dropped: u64 = moved.iter().map(|(reading, _)| reading.delta).sum();
    let events = dropped.max(resets);
    if events == 0 {
        return Ok(wording::still(&estab));
    }
    let severity = if events >= numbers::MANY && e.rate(events) >= numbers::MANY_PER_S {
        Severity::Warning
    } else {
        Severity::Info
    };
    let summary = format!(
        "{} rejected for an old timestamp in {}",
        words::counted(events, "segment"),
        words::seconds(e.window())
    );
    let finding = match resets {
        0 if events < numbers::MANY => wording::benign(e, numbers::FEW, events, "segments", summary),
        0 => wording::active(e, severity, numbers::COUNTED, events, "segments", summary),
        _ => wording::active(e, severity, numbers::NAMED, events, "segments", summary),
    };
    let mut finding: Finding = finding.subject(Subject::host());
    for (reading, meaning) in &moved {
        finding = finding.evidence(wording::moved(reading, meaning));
    }
    if resets > 0 {
        let text = format!("the kernel gave a wrong timestamp as the reason of {}", words::counted(resets, "RST"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "TCP_RFC7323_PAWS", resets as f64, text));
    }
    Ok(Verdict::Found(vec![
        finding
            .against(EvidenceItem::fact(
                "netstat",
                "TcpExt.PAWSEstab",
                "segments that took a detour are dropped rightly",
            ))
            .remedy(
                Remedy::new(
                    "Find the connections whose timestamps jump back, and the device before them",
                    "the PAWS counters in nstat -az stay flat",
                )
                .command(
                    ShellCommand::new("timeout 10 tcpdump -nvi any tcp").pipe(ShellCommand::new("grep").arg("TS val")),
                ),
            )
            .remedy(
                Remedy::new(
                    "As a test only: switch timestamps off for new connections (and on again with =1)",
                    "the PAWS counters in nstat -az stay flat",
                )
                .command(commands::set_sysctl("net.ipv4.tcp_timestamps", 0)),
            ),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    fn paws(before: u64, delta: u64) -> Case {
        Case::new().counter("TcpExt.PAWSEstab", before, delta)
    }

    #[test]
    fn a_storm_of_old_timestamps_is_a_warning() {
        assert_eq!(paws(0, 200).finding(&TIMESTAMP_REJECTED).severity, Severity::Warning);
    }

    #[test]
    fn a_detour_is_no_alarm() {
        assert_eq!(paws(0, 2).finding(&TIMESTAMP_REJECTED).severity, Severity::Info);
    }

    #[test]
    fn an_old_total_is_ruled_out_and_a_missing_counter_is_not_zero() {
        assert!(paws(9000, 0).counter("TcpExt.TCPACKSkippedPAWS", 0, 50).is_ruled_out(&TIMESTAMP_REJECTED));
        assert_eq!(Case::new().missing(&TIMESTAMP_REJECTED), Some("netstat"));
    }
}
