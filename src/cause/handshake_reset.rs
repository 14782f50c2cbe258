use super::numbers::handshake_reset as numbers;
use super::wording;
use super::{EvidenceItem, Judgement, Remedy, Subject, Verdict};
use crate::attribution::wire::Hook;
use crate::evidence::Evidence;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A peer answers the SYN-ACK of a listener with a RST: it never meant to connect. Load balancers probe that way, and
    /// so do SYN scanners.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.EmbryonicRsts` and `Tcp.AttemptFails` grow together; `TcpExt.ListenOverflows` does not.
    ///
    /// ## How to confirm
    ///
    /// `tcpdump -ni any 'tcp[tcpflags] & (tcp-syn|tcp-rst) != 0'` shows SYN, SYN-ACK, RST by the same few peers;
    /// `rstdoctor trace --received` as root shows only the RSTs.
    ///
    /// ## What to change
    ///
    /// Nothing for probes. If clients fail to connect, look for a firewall rule that rejects SYN-ACKs (OUTPUT) here.
    ///
    /// ## Look-alikes
    ///
    /// With tcp_abort_on_overflow=1 a full accept queue moves EmbryonicRsts too, with ListenOverflows. Spoofed SYNs are
    /// answered by RSTs of those who never asked (syn-flood).
    HANDSHAKE_RESET {
        id: "handshake-reset",
        title: "Handshake reset by the peer",
        explains: [],
        needs: [Window, Netstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let embryonic = e.counter("TcpExt.EmbryonicRsts")?;
    let failed = e.counter("Tcp.AttemptFails")?;
    if embryonic.delta == 0 {
        return Ok(wording::still(&embryonic));
    }
    // The RST for a full accept queue is counted in EmbryonicRsts and not in AttemptFails.
    let resets = embryonic.delta.min(failed.delta);
    // An output rule that rejects our SYN-ACKs moves both.
    let firewall = e.wire().map_or(0, |wire| wire.rejected_by(Hook::Output));
    let events = resets.saturating_sub(firewall);
    if resets > 0 && events == 0 {
        return Ok(Verdict::RuledOut("a firewall rule of this host rejected the SYN-ACKs".into()));
    }
    if events == 0 {
        return Ok(Verdict::RuledOut("EmbryonicRsts moved without AttemptFails: RSTs for a full accept queue".into()));
    }
    let summary = format!(
        "{} reset by the peers in {}: probes or scanners, no client was refused",
        words::counted(events, "handshake"),
        words::seconds(e.window())
    );
    let overflows = e.moved("TcpExt.ListenOverflows");
    let confidence = match (overflows, e.wire()) {
        (0, Ok(_)) => numbers::ALIKE,
        (0, Err(_)) => numbers::NO_PACKETS,
        _ => numbers::WITH_OVERFLOWS,
    };
    let finding = wording::benign(e, confidence, events, "handshakes", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&embryonic, "half-open connections ended by a RST"))
        .evidence(wording::moved(&failed, "moved alike, so the peers sent these RSTs"))
        .against(EvidenceItem::fact(
            "reset_packets",
            "peer",
            "a firewall rule that rejects our SYN-ACKs looks the same; then clients do fail",
        ));
    Ok(Verdict::Found(vec![
        finding.remedy(
            Remedy::new("Nothing to change for probes; to see who does it, as root", "few peers, at regular intervals")
                .command(ShellCommand::new("rstdoctor trace --received -d 10s")),
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::observation::testing::Case;

    fn probes(embryonic: u64, failed: u64) -> Case {
        Case::new().counter("TcpExt.EmbryonicRsts", 50_000, embryonic).counter("Tcp.AttemptFails", 60_000, failed)
    }

    #[test]
    fn half_open_probes_are_benign() {
        assert_eq!(probes(6, 6).finding(&HANDSHAKE_RESET).state, State::Benign);
    }

    #[test]
    fn refused_connects_alone_are_not_this() {
        assert!(probes(0, 20).is_ruled_out(&HANDSHAKE_RESET));
    }

    #[test]
    fn a_full_accept_queue_that_resets_is_not_this() {
        assert!(probes(20, 0).is_ruled_out(&HANDSHAKE_RESET));
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&HANDSHAKE_RESET), Some("netstat"));
    }
}
