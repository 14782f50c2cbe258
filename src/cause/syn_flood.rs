use super::half_open::{HalfOpen, Who};
use super::numbers::half_open;
use super::numbers::{Confidence, syn_flood as numbers};
use super::{EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, Verdict, Verify, commands};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// Somebody sends SYNs and never completes the handshakes, often from forged addresses. They fill the SYN queue of the
    /// listener until each expires (about 63 s). With SYN cookies real clients still get in; with
    /// `net.ipv4.tcp_syncookies=0` they are locked out.
    ///
    /// ## How it shows
    ///
    /// Many half-open connections whose SYN-ACK was sent again and again. `TcpExt.SyncookiesSent` grows, and
    /// `TcpExt.SyncookiesRecv` hardly at all. "Possible SYN flooding on port" in the kernel log.
    ///
    /// ## How to confirm
    ///
    /// `nstat -az TcpExtSyncookiesSent TcpExtSyncookiesRecv` and `ss -tn state syn-recv`: far more sent than received, and
    /// the peers are spread or do not answer.
    ///
    /// ## What to change
    ///
    /// Keep `tcp_syncookies=1` and filter as far upstream as possible. A longer backlog does not help.
    ///
    /// ## Look-alikes
    ///
    /// Cookies that come back are an honest burst (syn-queue-overflow). SYN-ACKs that get lost on the way back (a firewall
    /// or a wrong route) look the same from here: then the peers are your own clients. A full accept queue lets requests
    /// linger, too.
    SYN_FLOOD {
        id: "syn-flood",
        title: "SYN flood",
        explains: ["syn-queue-overflow"],
        needs: [Netstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let seen = HalfOpen::look(e)?;
    // With tcp_syncookies=2 no queue fills, but cookies that never come back still tell.
    let cookies_unanswered = seen.sent > 0 && seen.completed().is_some_and(|share| share < half_open::NONE_RETURNED);
    if !seen.overflowed(e) && !cookies_unanswered {
        return match seen.lingering() {
            Some(share)
                if share >= numbers::FILLING_LINGER && seen.requests * 2 >= seen.backlog && !seen.accept_queue_full =>
            {
                Ok(Verdict::Found(vec![flood(e, &seen, State::Risk, numbers::FILLING)]))
            }
            _ => Ok(Verdict::RuledOut("no SYN queue was full".into())),
        };
    }
    match seen.who() {
        Who::Nobody(confidence) => Ok(Verdict::Found(vec![flood(e, &seen, State::Active, confidence)])),
        Who::Unclear if seen.swept => Ok(Verdict::Found(vec![flood(e, &seen, State::Active, numbers::UNCLEAR)])),
        Who::Unclear => Err(crate::value::Missing::new(
            "sockets",
            "the SYN queue overflowed, and without a sweep nobody can say whether the handshakes complete",
        )),
        Who::Clients => Ok(Verdict::RuledOut("the handshakes complete: the clients are real".into())),
    }
}

fn flood(e: &Evidence<'_>, seen: &HalfOpen<'_, '_>, state: State, confidence: Confidence) -> Finding {
    // Dropped SYNs lock real clients out; unanswered cookies only cost CPU.
    let severity = if seen.dropped > 0 { Severity::Critical } else { Severity::Warning };
    let unanswered = seen.dropped + seen.sent.saturating_sub(seen.returned);
    let name = seen.worst.map_or("this host".to_owned(), Service::who);
    let summary = if state == State::Risk {
        format!("{} half-open connections on {name} do not complete", words::thousands(seen.requests))
    } else {
        format!(
            "SYNs that never become connections fill the SYN queue of {name}: {} in {}",
            words::thousands(unanswered),
            words::seconds(e.window())
        )
    };
    let impact = Impact { events: unanswered, per_s: e.rate(unanswered), unit: "SYNs" };
    let mut finding = Finding::new(state, severity, confidence, impact, summary)
        .subject(seen.worst.map_or_else(Subject::host, Subject::listener));
    finding.evidence = seen.evidence(e);
    if let Ok(socket_dump) = e.socket_dump() {
        for peer in socket_dump.peers.iter().filter(|peer| peer.syn_recv > 0).take(3) {
            // One address that holds a good part of the queue can be filtered; spread ones cannot.
            if peer.syn_recv * 5 >= seen.requests {
                finding = finding.subject(Subject::peer(peer.address, None).counted(peer.syn_recv));
            }
        }
    }
    finding = finding.against(EvidenceItem::fact(
        "sockets",
        "syn_recv",
        "SYN-ACKs that get lost on the way to real clients look the same",
    ));
    if e.sysctl_number("net.ipv4.tcp_syncookies") == Ok(0) {
        finding = finding.remedy(Remedy::sysctl(
            "Switch SYN cookies on: real clients get in again",
            "net.ipv4.tcp_syncookies",
            1,
            Verify::flat("TcpExtTCPReqQFullDrop"),
        ));
    }
    finding.remedy(
        Remedy::new(
            "See who sends them, then filter upstream: at the router, load balancer or provider",
            Verify::flat("TcpExtSyncookiesSent"),
        )
        .command(commands::most_frequent(
            ShellCommand::new("ss -tnH state syn-recv")
                .pipe(ShellCommand::new("awk").arg("{print $4}"))
                .pipe(ShellCommand::new("sed").arg("s/:[0-9]*$//")),
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, half_open, process};

    fn case(moved: [u64; 4], requests: [u64; 3], full_samples: u32) -> Case {
        let queue = if full_samples > 0 { 129 } else { 0 };
        half_open(
            Case::new().listener("0.0.0.0:8080", 128, queue, full_samples, &process(7, "nginx")),
            moved,
            8080,
            requests,
        )
    }

    #[test]
    fn cookies_that_never_come_back_are_a_flood() {
        let finding = case([5000, 0, 5000, 12], [128, 128, 128], 0).finding(&SYN_FLOOD);
        assert_eq!(finding.state, State::Active);
        assert!(finding.confidence >= 0.9);
        assert_eq!(finding.subjects[0].port, Some(8080));
    }

    #[test]
    fn without_cookies_a_queue_of_retransmitted_requests_is_a_flood() {
        let finding = case([0, 5000, 0, 0], [128, 120, 100], 0).finding(&SYN_FLOOD);
        assert_eq!(finding.severity, Severity::Critical);
        assert!((0.6..0.9).contains(&finding.confidence));
    }

    #[test]
    fn drops_that_only_listen_drops_counts_are_seen() {
        let case = case([0, 0, 0, 0], [97, 97, 90], 0)
            .counter("TcpExt.ListenDrops", 0, 900)
            .sysctl("net.ipv4.tcp_syncookies", "0")
            .sysctl("net.ipv4.tcp_max_syn_backlog", "128");
        let finding = case.finding(&SYN_FLOOD);
        assert_eq!((finding.state, finding.impact.events), (State::Active, 900));
    }

    #[test]
    fn an_honest_burst_is_none() {
        assert!(matches!(case([500, 0, 500, 470], [20, 1, 9], 0).judge(&SYN_FLOOD), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn requests_that_linger_behind_a_full_accept_queue_are_none() {
        assert!(matches!(case([500, 0, 0, 0], [128, 128, 9], 60).judge(&SYN_FLOOD), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn without_a_sweep_drops_alone_do_not_tell() {
        let mut case = case([0, 5000, 0, 0], [0, 0, 0], 0);
        case.netns.after.socket_dump = crate::value::Observed::Unavailable(crate::value::Failure::new(
            crate::value::FailureKind::Denied,
            "no sock_diag",
        ));
        assert_eq!(case.judge(&SYN_FLOOD).expect_err("no sweep").source, "sockets");
    }
}
