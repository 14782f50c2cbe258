use super::numbers::out_of_window_reset as numbers;
use super::{EvidenceItem, Judgement, Remedy, Severity, Subject, Verdict};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A RST, SYN or ACK arrives that does not fit the connection exactly. The kernel does not act on it, it asks back with
    /// a challenge ACK (RFC 5961). If the peer really lost the connection (reboot, reused port), it then answers with an
    /// exact RST and the connection ends.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPChallengeACK` grows; with a SYN in an open connection `TcpExt.TCPSYNChallenge` too.
    ///
    /// ## How to confirm
    ///
    /// `nstat -az TcpExtTCPChallengeACK TcpExtTCPSYNChallenge`; a capture shows SYN or RST, our ACK, then a RST.
    ///
    /// ## What to change
    ///
    /// SYNs: a client that rebooted, or a NAT that gives the same port out again too early. RSTs: somebody guesses, or a
    /// middlebox that sends RSTs with a wrong sequence number.
    ///
    /// ## Look-alikes
    ///
    /// A RST that crosses data on its way is out of window by chance. ACKs of data never sent count as well.
    OUT_OF_WINDOW_RESET {
        id: "out-of-window-reset",
        title: "Resets that did not fit",
        explains: [],
        needs: [Window, Netstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let challenges = e.counter("TcpExt.TCPChallengeACK")?;
    let syns = e.moved("TcpExt.TCPSYNChallenge");
    if challenges.delta == 0 && syns == 0 {
        return Ok(wording::still(&challenges));
    }
    let events = challenges.delta.max(syns);
    // A challenge protects the connection; only one that is followed by a reset did harm.
    let lost = syns.min(e.moved("Tcp.EstabResets"));
    let severity = if lost >= severity::FEW { Severity::Warning } else { Severity::Info };
    let (confidence, what) = match syns {
        0 => (numbers::NO_SYN, "most likely RSTs with a wrong sequence number"),
        _ if lost >= syns => (
            numbers::RESET_AFTER_SYN,
            "SYNs in open connections, which were then reset: a rebooted client or a reused port",
        ),
        _ => (numbers::SYN, "SYNs in open connections: a rebooted client or a reused port"),
    };
    let summary = format!("{} sent in {}: {what}", words::counted(events, "challenge ACK"), words::seconds(e.window()));
    let mut finding = wording::active(e, severity, confidence, events, "segments", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&challenges, "segments that did not fit were questioned, not obeyed"));
    if let (1.., Ok(reading)) = (syns, e.counter("TcpExt.TCPSYNChallenge")) {
        finding = finding.evidence(wording::moved(&reading, "these were SYNs in open connections"));
    }
    Ok(Verdict::Found(vec![
        finding
            .against(EvidenceItem::fact(
                "netstat",
                "TcpExt.TCPChallengeACK",
                "ACKs of data never sent, and RSTs that crossed data, are questioned as well",
            ))
            .remedy(
                Remedy::new(
                    "See who sends them: a rebooted client, a NAT in a hurry, or a stranger",
                    "few peers are named",
                )
                .command(ShellCommand::new("timeout 10 tcpdump -ni any").arg("tcp[tcpflags] & (tcp-rst|tcp-syn) != 0")),
            ),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    fn challenges(acks: u64, syns: u64, resets: u64) -> Case {
        Case::new().counter("TcpExt.TCPChallengeACK", 10, acks).counter("TcpExt.TCPSYNChallenge", 10, syns).counter(
            "Tcp.EstabResets",
            0,
            resets,
        )
    }

    #[test]
    fn rebooted_clients_that_end_in_resets_are_a_warning() {
        assert_eq!(challenges(20, 20, 20).finding(&OUT_OF_WINDOW_RESET).severity, Severity::Warning);
    }

    #[test]
    fn challenges_without_resets_did_no_harm() {
        assert_eq!(challenges(20, 0, 20).finding(&OUT_OF_WINDOW_RESET).severity, Severity::Info);
    }

    #[test]
    fn no_movement_is_ruled_out_and_a_missing_counter_is_not_zero() {
        assert!(challenges(0, 0, 20).is_ruled_out(&OUT_OF_WINDOW_RESET));
        assert_eq!(Case::new().missing(&OUT_OF_WINDOW_RESET), Some("netstat"));
    }
}
