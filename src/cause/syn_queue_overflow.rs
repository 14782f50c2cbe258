use super::half_open::{HalfOpen, Who};
use super::numbers::syn_queue_overflow as numbers;
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, Verdict, Verify, commands,
    queue,
};
use crate::evidence::Evidence;
use crate::evidence::backlog::known_server;
use crate::evidence::service::Service;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A connection whose handshake is under way waits in the SYN queue of the listener. It holds as many as the backlog
    /// (min of the argument of listen() and `net.core.somaxconn`). When it is full, the kernel answers further SYNs with
    /// SYN cookies: the connection still works, without some TCP options. With `net.ipv4.tcp_syncookies=0` it drops the
    /// SYN, and the client tries again after 1, 3, 7 s.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPReqQFullDoCookies` or `TcpExt.TCPReqQFullDrop` grows. "Possible SYN flooding on port" in the kernel log,
    /// once for each listener.
    ///
    /// ## How to confirm
    ///
    /// `nstat -az TcpExtTCPReqQFullDrop TcpExtTCPReqQFullDoCookies TcpExtSyncookiesSent TcpExtSyncookiesRecv`: cookies come
    /// back about as often as they are sent. `ss -tn state syn-recv` counts the half-open ones.
    ///
    /// ## What to change
    ///
    /// Keep `tcp_syncookies=1`. Raise the backlog of the application and somaxconn. `tcp_max_syn_backlog` matters only
    /// with `tcp_syncookies=0`.
    ///
    /// ## Look-alikes
    ///
    /// A full accept queue keeps requests in the SYN queue: then that is the cause, and this the symptom. Handshakes that
    /// never complete are a syn-flood. With `tcp_syncookies=2` cookies are always sent and say nothing.
    SYN_QUEUE_OVERFLOW {
        id: "syn-queue-overflow",
        title: "SYN queue overflow",
        explains: [],
        needs: [Netstat],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    let seen = HalfOpen::look(e)?;
    if !seen.overflowed(e) {
        return Ok(Verdict::RuledOut("no SYN met a full SYN queue".into()));
    }
    let who = seen.who();
    let confidence = match who {
        Who::Nobody(_) => {
            return Ok(Verdict::RuledOut("the SYN queue is full of handshakes that never complete: syn-flood".into()));
        }
        Who::Unclear => numbers::UNCLEAR,
        Who::Clients if seen.completed().is_some() || seen.accept_queue_full => numbers::CLIENTS,
        Who::Clients => numbers::PROBABLY_CLIENTS,
    };
    // A cookie is as good as a place in the queue: only drops are a loss.
    let lost = seen.dropped;
    let per_s = e.rate(lost);
    let (state, severity) = match lost {
        0 if seen.full_now() => (State::Active, Severity::Warning),
        0 => (State::Benign, Severity::Info),
        _ if per_s >= numbers::CRITICAL_PER_S => (State::Active, Severity::Critical),
        _ => (State::Active, Severity::Warning),
    };
    let name = seen.worst.map_or("a listener".to_owned(), Service::who);
    let window = words::seconds(e.window());
    let summary = match (lost, state) {
        (0, State::Benign) => format!(
            "a burst filled the SYN queue of {name}: {} answered by cookie, none lost",
            words::counted(seen.cookies_wanted, "SYN")
        ),
        (0, _) => format!("the SYN queue of {name} is full: new clients get SYN cookies"),
        _ => format!("the SYN queue of {name} is full: {} dropped in {window}", words::counted(lost, "SYN")),
    };
    let impact = Impact { events: lost, per_s, unit: "connection attempts" };
    let mut finding = Finding::new(state, severity, confidence, impact, summary);
    finding = finding.subject(seen.worst.map_or_else(Subject::host, Subject::listener));
    finding.evidence = seen.evidence(e);
    if who == Who::Unclear {
        finding = finding.against(EvidenceItem::fact(
            "netstat",
            "TcpExt.SyncookiesRecv",
            "many handshakes do not complete: this may be a SYN flood",
        ));
    }
    if e.socket_dump().is_err() {
        finding =
            finding.against(EvidenceItem::fact("sockets", "syn_recv", "which listener: the sweep was not possible"));
    }
    Ok(Verdict::Found(vec![remedies(e, &seen, finding)]))
}

fn remedies(e: &Evidence<'_>, seen: &HalfOpen<'_, '_>, mut finding: Finding) -> Finding {
    if e.sysctl_number("net.ipv4.tcp_syncookies") == Ok(0) {
        finding = finding.remedy(Remedy::sysctl(
            "Switch SYN cookies on: a full SYN queue then loses nothing",
            "net.ipv4.tcp_syncookies",
            1,
            Verify::flat("TcpExtTCPReqQFullDrop"),
        ));
    }
    if seen.accept_queue_full {
        finding = finding.remedy(Remedy::new(
            "Cure the full accept queue first: it keeps handshakes in the SYN queue",
            Verify::by(ShellCommand::new("ss -lnt"), "shows Recv-Q below Send-Q"),
        ));
    }
    let wanted = (seen.backlog * 4).max(4096);
    let Some(service) = seen.worst else {
        return finding.remedy(
            Remedy::new("Find the listener with the most half-open connections", "its port leads the list").command(
                commands::most_frequent(
                    ShellCommand::new("ss -tnH state syn-recv").pipe(ShellCommand::new("awk").arg("{print $3}")),
                ),
            ),
        );
    };
    let verify = Verify::by(queue::listed(service), format!("shows a Send-Q above {}", seen.backlog));
    if e.sysctl_number("net.core.somaxconn").is_ok_and(|somaxconn| somaxconn < wanted) {
        finding = finding.remedy(
            Remedy::sysctl(
                "Raise somaxconn, which caps the backlog; then restart the application",
                "net.core.somaxconn",
                wanted,
                verify.clone(),
            )
            .restart(Restart::Service),
        );
    }
    finding.remedy(queue::longer_backlog(service, known_server(&service.owners), wanted, verify))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, half_open, process};

    fn case(cookies: u64, drops: u64, returned: u64, requests: u64, retransmitted: u64) -> Case {
        half_open(
            Case::new().sysctl("net.core.somaxconn", "4096").listener("0.0.0.0:8080", 128, 0, 0, &process(7, "nginx")),
            [cookies, drops, cookies, returned],
            8080,
            [requests, retransmitted, 40],
        )
    }

    #[test]
    fn in_the_first_second_nobody_can_tell_a_flood() {
        let mut short = case(0, 300, 0, 128, 0).sysctl("net.ipv4.tcp_syncookies", "0");
        short.netns.after.at.mono -= std::time::Duration::from_secs(2);
        let finding = short.finding(&SYN_QUEUE_OVERFLOW);
        assert!(finding.confidence <= 0.6, "{}", finding.confidence);
        assert!(finding.counter_evidence.iter().any(|item| item.text.contains("SYN flood")));
    }

    #[test]
    fn dropped_clients_are_named_with_their_listener() {
        let finding = case(0, 300, 0, 128, 3).sysctl("net.ipv4.tcp_syncookies", "0").finding(&SYN_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert_eq!(finding.subjects[0].port, Some(8080));
        assert_eq!(finding.remedies[0].line().as_deref(), Some("sysctl -w net.ipv4.tcp_syncookies=1"));
    }

    #[test]
    fn a_burst_that_cookies_served_is_benign() {
        let finding = case(300, 0, 290, 0, 0).finding(&SYN_QUEUE_OVERFLOW);
        assert_eq!((finding.state, finding.severity), (State::Benign, Severity::Info));
    }

    #[test]
    fn a_flood_is_not_called_an_overflow_by_clients() {
        assert!(matches!(case(300, 0, 0, 128, 120).judge(&SYN_QUEUE_OVERFLOW), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn cookies_that_are_always_sent_say_nothing() {
        let case = case(300, 0, 290, 0, 0).sysctl("net.ipv4.tcp_syncookies", "2");
        assert!(matches!(case.judge(&SYN_QUEUE_OVERFLOW), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn without_counters_nothing_is_claimed() {
        assert_eq!(Case::new().judge(&SYN_QUEUE_OVERFLOW).expect_err("no counters").source, "netstat");
    }
}
