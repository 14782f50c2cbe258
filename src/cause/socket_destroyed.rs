use super::numbers::socket_destroyed as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Verdict, Verify};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// An administrator or an agent destroyed sockets: `ss -K`, a network manager after an address change, a BPF program.
    /// The peer is reset; the application here reads "Software caused connection abort" (ECONNABORTED).
    ///
    /// ## How it shows
    ///
    /// `Tcp.OutRsts` and `Tcp.EstabResets` grow, no TCPAbort counter. The tracepoint tcp:tcp_send_reset gives TCP_STATE while
    /// the socket is still ESTABLISHED: only tcp_abort() does that (net/ipv4/tcp.c).
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --sent` as root names the process that does it; `journalctl` and the shell history say why.
    ///
    /// ## What to change
    ///
    /// Stop whoever does it, or narrow the filter of `ss -K`.
    ///
    /// ## Look-alikes
    ///
    /// Linger 0 and a closed listener have the same kernel reason, with the socket already in CLOSE.
    SOCKET_DESTROYED {
        id: "socket-destroyed",
        title: "Sockets destroyed by an administrator",
        explains: [],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let groups = e.resets_of(SOCKET_DESTROYED.id, Direction::Sent)?;
    let findings = place::places(e, &groups).into_iter().map(|place| finding(e, place)).collect();
    Ok(Verdict::from_findings(findings, "nobody destroyed a socket from outside"))
}

fn finding(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let who = place.task().map_or("an administrator".to_owned(), |task| task.label());
    let whose = match (place.port, place.called) {
        (Some(port), _) => format!(" on port {port}"),
        (None, Some(called)) => format!(" to {called}"),
        (None, None) => String::new(),
    };
    let harm = severity::lately(e, SOCKET_DESTROYED.id, place.harm(e));
    let summary = format!(
        "{who} destroyed {}{whose} in {} (SOCK_DESTROY)",
        harm.counted("connection"),
        words::seconds(e.window())
    );
    // Done on purpose, but the clients of a served port are hurt all the same.
    let severity = match severity::to_clients(e, &harm) {
        _ if place.as_client() => Severity::Info,
        severity => severity.max(Severity::Warning),
    };
    wording::active(e, severity, numbers::NAMED, place.count, "resets", summary)
        .subjects(place.subjects(e))
        .evidence(place.item("TCP_STATE", "an abort from outside, in an open connection"))
        .harm(harm)
        .against(EvidenceItem::fact("reset_events", "caller", "a BPF program that destroys sockets looks the same"))
        .remedy(
            Remedy::new("Find who ran ss -K or an agent that does the same", Verify::scan("shows none any more"))
                .command(
                    ShellCommand::new("journalctl --since -10min")
                        .pipe(ShellCommand::new("grep -Ei").arg("ss -K|destroy|network.*(down|up)")),
                ),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process, task};
    use crate::value::TcpState;

    fn aborted(state: TcpState) -> Case {
        Case::new().listener("0.0.0.0:9000", 128, 0, 0, &process(7, "app")).sent(
            20,
            "TCP_STATE",
            Some(state),
            ["10.0.0.9:9000", "10.0.3.7:0"],
            Some(task(99, "ss")),
        )
    }

    #[test]
    fn the_culprit_is_named() {
        let finding = aborted(TcpState::Established).finding(&SOCKET_DESTROYED);
        assert!(finding.summary.starts_with("ss (pid 99) destroyed 20"), "{}", finding.summary);
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn linger_has_the_same_reason_and_is_not_this() {
        assert!(aborted(TcpState::Close).is_ruled_out(&SOCKET_DESTROYED));
    }

    #[test]
    fn without_events_nothing_is_claimed() {
        assert_eq!(Case::new().counter("Tcp.OutRsts", 0, 20).missing(&SOCKET_DESTROYED), Some("reset_events"));
    }
}
