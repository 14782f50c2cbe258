use super::numbers::retransmission_timeout as numbers;
use super::{EvidenceItem, Judgement, Remedy, Severity, Subject, Verdict};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::reset::Kind;
use crate::source::socket_dump::GroupKind;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A peer stopped answering while data was under way, or never answered a connect. The kernel retransmitted until
    /// tcp_retries2, TCP_USER_TIMEOUT or tcp_syn_retries ran out and told the application "Connection timed out". It sends
    /// no RST: the peer, if it lives, meets one at its next segment.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPAbortOnTimeout` grows and `Tcp.OutRsts` does not (net/ipv4/tcp_timer.c tcp_write_timeout).
    ///
    /// ## How to confirm
    ///
    /// `ss -tnoi` shows `timer:(on,...,N)` with a growing N and `backoff`.
    ///
    /// ## What to change
    ///
    /// Find what swallows the packets: host down, DROP rule, route, MTU (`ping -M do -s 1472`). Single vanished peers are
    /// normal.
    ///
    /// ## Look-alikes
    ///
    /// Keepalive that gives up sends a RST (keepalive-timeout). A full accept queue lets clients time out in connect.
    RETRANSMISSION_TIMEOUT {
        id: "retransmission-timeout",
        title: "Retransmission gave up",
        explains: [],
        needs: [Window, Netstat, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let reading = e.counter("TcpExt.TCPAbortOnTimeout")?;
    if reading.delta == 0 {
        return Ok(wording::still(&reading));
    }
    let counted = e.estimate()?;
    let exact = e
        .attribution()
        .ok()
        .filter(|events| events.sent.is_ok() && events.hidden == 0)
        .map(|events| events.count(Kind::Keepalive));
    let silent = exact.map_or(counted.silent_timeouts, |keepalive| reading.delta.saturating_sub(keepalive));
    if silent == 0 {
        return Ok(Verdict::RuledOut("every timer that gave up was keepalive".into()));
    }
    let confidence = match exact {
        Some(_) => numbers::EVENTS,
        None if e.moved("TcpExt.TCPKeepAlive") == 0 && counted.rest == 0 => numbers::NO_KEEPALIVE,
        // A RST that nothing else explains may have been keepalive's.
        None => numbers::MIXED,
    };
    let groups = e.groups(GroupKind::Retransmitting).unwrap_or_default();
    let stuck: u64 = groups.iter().map(|group| group.sockets).sum();
    // Vanished peers are normal. Many at once while others retransmit still is a path or a host that is down.
    let severity = if silent >= numbers::MANY && stuck >= severity::FEW { Severity::Warning } else { Severity::Info };
    let connects = counted.connect_timeouts.min(silent);
    let what = match connects {
        0 => String::new(),
        n => format!(" (up to {} of them connects)", words::thousands(n)),
    };
    let summary = format!(
        "{}{what} timed out in {}: the peers did not answer",
        words::counted(silent, "connection"),
        words::seconds(e.window())
    );
    let mut finding = wording::active(e, severity, confidence, silent, "connections", summary)
        .evidence(wording::moved(&reading, "timers that gave up on a connection; these sent no RST"));
    match groups.first() {
        Some(group) => {
            let side = if group.accepted { "on port" } else { "to port" };
            let text = format!("{} {side} {} retransmit now", words::counted(group.sockets, "connection"), group.port);
            let peer = group.samples.first().map(|sample| Subject::peer(sample.peer.ip(), Some(group.port)));
            finding = finding
                .evidence(EvidenceItem::value("sockets", "retransmitting", group.sockets as f64, text))
                .subject(peer.unwrap_or_else(Subject::host));
        }
        None => finding = finding.subject(Subject::host()),
    }
    if exact.is_none() && e.moved("TcpExt.TCPKeepAlive") > 0 {
        finding = finding.against(EvidenceItem::fact(
            "netstat",
            "TcpExt.TCPAbortOnTimeout",
            "keepalive that gives up moves the same counter",
        ));
    }
    Ok(Verdict::Found(vec![
        finding
            .remedy(
                Remedy::new(
                    "See which peers do not answer, then look at them and at the path",
                    "ss shows no growing backoff",
                )
                .command(ShellCommand::new("ss -tnoi").pipe(ShellCommand::new("grep -B1 backoff"))),
            )
            .remedy(Remedy::sysctl(
                "If only large packets are lost, let TCP find the path's MTU",
                "net.ipv4.tcp_mtu_probing",
                1,
                "the transfer goes on",
            )),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;

    #[test]
    fn silent_timeouts_are_told_and_single_ones_are_no_alarm() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("TcpExt.TCPAbortOnTimeout", 3, 5);
        let finding = case.finding(&RETRANSMISSION_TIMEOUT);
        assert_eq!((finding.severity, finding.impact.events), (Severity::Info, 5));
    }

    #[test]
    fn an_old_total_is_not_reported() {
        let case = Case::new().counter("TcpExt.TCPAbortOnTimeout", 90_000, 0);
        assert!(case.is_ruled_out(&RETRANSMISSION_TIMEOUT));
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&RETRANSMISSION_TIMEOUT), Some("netstat"));
    }
}
