use std::time::Duration;

use super::numbers::peer_reset as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify};
use super::{exchange, severity, wording};
use crate::attribution::Ended;
use crate::attribution::wire::Suspect;
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::reset::{End, Kind};
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// The other end, or something that speaks for it, reset an open connection. A program here reads "Connection reset by
    /// peer". Behind a served port it is mostly a client that went away (closed tab, cancelled request, probe); towards
    /// an upstream it is the upstream's fault or a device in between.
    ///
    /// ## How it shows
    ///
    /// `Tcp.EstabResets` grows by more than this host's own aborts. The tracepoint tcp:tcp_receive_reset fires in
    /// ESTABLISHED or CLOSE_WAIT.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --received` as root shows each with its peer, and what the RST says of its own reason, if anything. On
    /// the peer, if it runs Linux, `rstdoctor trace --sent` knows the reason.
    ///
    /// ## What to change
    ///
    /// Nothing here for clients that cancel. For an upstream: find its reason there, keep pooled connections for less time
    /// than its idle limit, retry what is safe to repeat.
    ///
    /// ## Look-alikes
    ///
    /// EstabResets has no direction: it counts own aborts and timeouts too, and both ends on loopback. A middlebox may
    /// have sent the RST in the peer's name.
    PEER_RESET {
        id: "peer-reset",
        title: "Reset by the other end",
        explains: [],
        needs: [Window, Snmp],
        judge: judge,
    }
}

/// A process that ends, or lets go of its connections, does so within this time.
const ONE_MOMENT: Duration = Duration::from_secs(1);

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let across = e.across().filter(|across| across.is_proof() && across.never_sent > 0 && across.arrived == 0);
    if across.is_some() {
        return Ok(Verdict::RuledOut("the capture of the other end shows that it sent none of these RSTs".to_owned()));
    }
    if let Ok(groups) = e.resets_of(PEER_RESET.id, Direction::Received) {
        if let Some(answered) = answers_to_challenges(e, groups.iter().map(|group| group.count).sum()) {
            return Ok(answered);
        }
        // One finding for all clients of a port; cancelling clients are many, with an address each.
        let findings: Vec<_> = place::places(e, &groups).into_iter().map(|place| by_events(e, place)).collect();
        return Ok(Verdict::from_findings(findings, "no open connection was reset by a peer"));
    }
    let reading = e.counter("Tcp.EstabResets")?;
    let counted = e.estimate()?;
    if let Some(answered) = answers_to_challenges(e, counted.received) {
        return Ok(answered);
    }
    let own = counted.unread + counted.on_data + counted.memory + counted.keepalive + counted.listener_closed;
    if counted.received == 0 {
        return Ok(match reading.delta {
            0 => wording::still(&reading),
            _ => Verdict::RuledOut("this host's own aborts and timeouts account for EstabResets".into()),
        });
    }
    if own > 0 && counted.received == own {
        let why = "EstabResets is twice this host's own aborts: both ends are on this host";
        return Ok(Verdict::RuledOut(why.into()));
    }
    let doubtful = own > 0 || counted.sent > 0;
    // As many RSTs sent as received, by a host that both calls and is called: they may be the same ones, on loopback. A
    // process killed with 10 unread and 10 busy connections within one namespace gives EstabResets 30, OutRsts 20.
    let within = counted.sent >= counted.received && e.moved("Tcp.PassiveOpens") > 0 && e.moved("Tcp.ActiveOpens") > 0;
    // By count alone, a peer that resets what it has just opened may as well be a prober or a late goodbye.
    let severity = if within || own > counted.received || !severity::in_use(e, counted.received) {
        Severity::Info
    } else {
        severity::by_peers(e, counted.received)
    };
    let by_others = e.wire().map_or(0, |wire| wire.forged.len() + wire.suspects.len()) as u64;
    let confidence = match (within, doubtful) {
        _ if by_others * 2 >= counted.received => numbers::PERHAPS_FORGED,
        (true, _) => numbers::PERHAPS_OWN,
        (false, true) => numbers::WITH_SENT,
        (false, false) if e.wire().is_ok() => numbers::LIKE_THE_PEERS,
        (false, false) => numbers::COUNTED,
    };
    let summary = format!(
        "about {} reset by their peers in {}",
        words::counted(counted.received, "open connection"),
        words::seconds(e.window())
    );
    let mut finding = wording::active(e, severity, confidence, counted.received, "resets", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&reading, "open connections that ended by reset, own aborts and timeouts taken off"));
    if doubtful {
        finding = finding.against(EvidenceItem::value(
            "snmp",
            "Tcp.OutRsts",
            counted.sent as f64,
            format!(
                "this host sent {} in the same window: some of these connections may have both ends here",
                words::counted(counted.sent, "RST")
            ),
        ));
    }
    Ok(Verdict::Found(vec![with_remedies(e, finding, None)]))
}

/// A SYN in an open connection is answered by a challenge ACK, and the peer, which knows no such connection any more, by
/// a RST (RFC 5961, section 4): then the SYN is the news, and out-of-window-reset reports it.
fn answers_to_challenges(e: &Evidence<'_>, resets: u64) -> Option<Verdict> {
    let challenged = e.moved("TcpExt.TCPSYNChallenge");
    let most = resets > 0 && challenged * 5 >= resets * 4;
    most.then(|| {
        let why = format!("the {} answered challenge ACKs to SYNs in open connections", words::counted(resets, "RST"));
        Verdict::RuledOut(why)
    })
}

fn by_events(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    // A peer that closed first and then answers our data with RST has gone away by itself: a client's cancel, a late goodbye.
    let gone = place.groups.iter().filter(|group| group.kind == Kind::ClientGone).map(|group| group.count).sum::<u64>();
    let harm = place.harm(e);
    // Clients that cancel come in bursts.
    let recovered = recovered(e, &place);
    let burst = harm.burst.filter(|_| place.called.is_some() && gone == 0 && recovered.is_none());
    let harm = severity::lately(e, PEER_RESET.id, Harm { failures: place.count - gone, burst, ..harm });
    let severity = match place.called {
        // Over, and tried again with success: a reload, a restart or a failover.
        Some(_) if recovered.is_some() => severity::to_callers(e, &harm).max(Severity::Warning),
        Some(_) => severity::to_callers(e, &harm),
        None => severity::by_clients(e, &harm),
    };
    let peers = place.peers();
    let by = match peers.as_slice() {
        [(peer, _)] => peer.to_string(),
        peers => words::counted(peers.len() as u64, "peer"),
    };
    let who = match place.called {
        Some(called) => format!("to {called}"),
        None => format!("on {}", place.port.map_or("several ports".to_owned(), |p| format!("port {p}"))),
    };
    let open = place.count - gone;
    let (what, when) = match (open, gone) {
        (_, 0) if place.called.is_none() => ("open connection", " (clients that went away?)".to_owned()),
        (_, 0) => ("open connection", String::new()),
        (0, _) => ("connection", " after it had closed them".to_owned()),
        _ => ("connection", format!(", {} of them after it had closed them", words::thousands(gone))),
    };
    let when = if peers.len() > 1 { when.replace("after it had", "after they had") } else { when };
    let summary =
        format!("{} {who} reset by {by}{when}, in {}", words::counted(place.count, what), words::seconds(e.window()));
    let suspects = suspects(e, &place);
    let confidence = if suspects * 2 >= place.count { numbers::PERHAPS_FORGED } else { numbers::NAMED };
    let finding =
        wording::active(e, severity, confidence, place.count, "resets", summary).subjects(place.subjects(e)).harm(harm);
    let finding = match open {
        0 => finding,
        _ => finding.evidence(EvidenceItem::value(
            "reset_events",
            "received",
            open as f64,
            format!("{} arrived in open connections", words::counted(open, "RST")),
        )),
    };
    let told = exchange::told_by_caller(e, &place);
    // Who was told something before it was reset is not described by having nothing to wait for.
    let under_way = place.under_way(e).filter(|item| told.is_none() || item.after > Some(0.0));
    let finding = finding.evidence_if(told).evidence_if(under_way).evidence_if(place.stated(e));
    let finding = finding.against_if(recovered.map(|after| {
        let text = format!(
            "all of them at one moment, and {} to it {} open or well after that: a reload, a restart or a failover looks so",
            words::counted(after, "connection"),
            words::were(after)
        );
        EvidenceItem::value("destroyed_sockets", "after", after as f64, text)
    }));
    let ttl = match e.wire() {
        Ok(wire) if wire.judged > 0 => None,
        _ => Some("a device on the path can send RSTs in the peer's name: their TTL could not be compared"),
    };
    let finding = match ttl {
        Some(text) => finding.against(EvidenceItem::fact("reset_packets", "ttl", text)),
        None => finding.evidence(EvidenceItem::fact(
            "reset_packets",
            "ttl",
            "the RSTs arrived with the TTL of the peers' other packets",
        )),
    };
    let finding = match gone {
        0 => finding,
        _ => finding.evidence(EvidenceItem::value(
            "reset_events",
            "CLOSE_WAIT",
            gone as f64,
            format!("{} arrived where the peer had closed already: it wanted no more", words::counted(gone, "RST")),
        )),
    };
    let finding = match suspects {
        0 => finding,
        _ => finding.against(EvidenceItem::value(
            "reset_packets",
            "ip_id",
            suspects as f64,
            format!("{} by their IP id perhaps not of the peer", words::counted(suspects, "RST")),
        )),
    };
    with_remedies(e, finding, place.called)
}

/// How many connections to the destination were well after the one moment in which all these came, where they are as many.
fn recovered(e: &Evidence<'_>, place: &Place<'_>) -> Option<u64> {
    let called = place.called?;
    let first = place.groups.iter().map(|group| group.first).min()?;
    let last = place.groups.iter().map(|group| group.last).max()?;
    let well = |ended: &&Ended<'_>| {
        let answered = ended.end == End::Other && ended.socket.bytes_received > Some(1);
        ended.called == Some(called) && ended.socket.at > last && answered
    };
    let after = e.ended().ok()?.iter().filter(well).count() as u64 + e.open_at_end(Target::Called(called));
    let span = last.saturating_sub(first);
    (span <= ONE_MOMENT && span * 3 <= e.window() && after >= place.count).then_some(after)
}

/// Of this place's, those whose IP id does not fit the peer.
fn suspects(e: &Evidence<'_>, place: &Place<'_>) -> u64 {
    let Ok(wire) = e.wire() else { return 0 };
    let here = |suspect: &&Suspect| match place.called {
        Some(called) => suspect.peer == called,
        None => suspect.port.is_some() && place.port.is_none_or(|port| suspect.port == Some(port)),
    };
    wire.suspects.iter().filter(here).count() as u64
}

fn with_remedies(e: &Evidence<'_>, finding: Finding, called: Option<std::net::SocketAddr>) -> Finding {
    let verify = Verify::scan("shows no reset by the other end");
    let finding = match called {
        Some(called) => finding.remedy(
            Remedy::new(
                format!("Find the reason on {}, as root: it (or a device before it) sent the RST", called.ip()),
                verify.clone(),
            )
            .command(ShellCommand::new("rstdoctor trace --sent --port").arg(called.port())),
        ),
        None => finding,
    };
    let needs = if e.reset_events().is_ok() { "" } else { " (as root, with tracefs)" };
    finding.remedy(
        Remedy::new(format!("See who resets, and when{needs}: clients that cancel need no change here"), verify)
            .command(ShellCommand::new("rstdoctor trace --received -d 30s")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::source::socket_dump::{Destination, SocketDump};
    use crate::value::TcpState;

    #[test]
    fn resets_that_answer_challenge_acks_are_another_cause() {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.EstabResets", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .counter("TcpExt.TCPSYNChallenge", 0, 20);
        assert!(case.is_ruled_out(&PEER_RESET));
    }

    #[test]
    fn an_upstream_that_resets_old_connections_is_a_warning() {
        let finding = Case::new()
            .counter("Tcp.ActiveOpens", 0, 2)
            .received(20, TcpState::Established, ["10.0.0.9:0", "10.0.7.1:5432"])
            .finding(&PEER_RESET);
        assert_eq!((finding.severity, finding.subjects[0].port), (Severity::Warning, Some(5432)));
    }

    #[test]
    fn cancelling_clients_are_no_alarm() {
        let finding = Case::new()
            .counter("Tcp.PassiveOpens", 0, 400)
            .received(20, TcpState::Established, ["10.0.0.9:443", "192.0.2.1:0"])
            .finding(&PEER_RESET);
        assert_eq!(finding.severity, Severity::Info);
    }

    #[test]
    fn resets_after_our_close_are_not_this() {
        let case = Case::new().received(20, TcpState::LastAck, ["10.0.0.9:443", "192.0.2.1:0"]);
        assert!(case.is_ruled_out(&PEER_RESET));
    }

    #[test]
    fn what_the_peer_had_closed_is_not_called_open() {
        let finding = Case::new()
            .counter("Tcp.PassiveOpens", 0, 400)
            .received(20, TcpState::CloseWait, ["10.0.0.9:443", "192.0.2.1:0"])
            .finding(&PEER_RESET);
        assert!(finding.summary.starts_with("20 connections on port 443 reset by 192.0.2.1 after it had closed them"));
        assert!(!finding.evidence.iter().any(|item| item.text.contains("open")), "{finding:?}");
        let mixed = Case::new()
            .received(5, TcpState::Established, ["10.0.0.9:443", "192.0.2.1:0"])
            .received(15, TcpState::CloseWait, ["10.0.0.9:443", "192.0.2.2:0"])
            .finding(&PEER_RESET);
        assert!(mixed.summary.contains("15 of them after they had closed them"), "{}", mixed.summary);
        assert!(mixed.evidence.iter().any(|item| item.text == "5 RSTs arrived in open connections"), "{mixed:?}");
    }

    #[test]
    fn own_aborts_on_loopback_are_not_this() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.EstabResets", 0, 40).counter(
            "TcpExt.TCPAbortOnClose",
            0,
            20,
        );
        assert!(case.is_ruled_out(&PEER_RESET));
    }

    #[test]
    fn what_a_killed_process_sent_on_loopback_is_no_alarm_of_this_kind() {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.EstabResets", 0, 30)
            .counter("TcpExt.TCPAbortOnClose", 0, 10)
            .counter("Tcp.PassiveOpens", 0, 20)
            .counter("Tcp.ActiveOpens", 0, 20);
        assert_eq!(case.finding(&PEER_RESET).severity, Severity::Info);
    }

    #[test]
    fn what_packets_deny_the_counters_do_not_claim() {
        let ends = ["10.0.0.9:8080", "10.0.3.7:0"];
        let confidence = |ttl| {
            let case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("Tcp.EstabResets", 0, 20);
            case.seen_ttl("10.0.3.7", 61).packets(20, Direction::Received, 4, ttl, ends).finding(&PEER_RESET).confidence
        };
        assert!(confidence(61) >= 0.8 && confidence(40) <= 0.4);
    }

    #[test]
    fn counters_alone_give_an_estimate() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("Tcp.EstabResets", 0, 3);
        let finding = case.finding(&PEER_RESET);
        assert!(finding.severity == Severity::Info && finding.confidence < 0.9);
        assert_eq!(Case::new().missing(&PEER_RESET), Some("snmp"));
    }

    /// 60 connections of a pool, reset at one moment, or each 100 ms; and `open` of them at the end.
    fn pool(gap_ms: u64, open: u64) -> Case {
        let to = Destination {
            source: "10.0.0.9".parse().expect("address"),
            address: "10.0.7.1".parse().expect("address"),
            port: 8080,
            ports_used: open,
            time_wait: 0,
            fin_wait2: 0,
            inodes: Vec::new(),
        };
        let dump = SocketDump { destinations: vec![to], ..SocketDump::default() };
        let ends = ["10.0.0.9:0", "10.0.7.1:8080"];
        let mut case = Case::new()
            .tracepoints()
            .counter("Tcp.ActiveOpens", 0, open)
            .received(60, TcpState::Established, ends)
            .socket_dump(SocketDump::default(), dump)
            .destroyed_sockets(60, ends, 0, 0);
        let at = |number: usize| Duration::from_millis(1_000_500 + number as u64 * gap_ms);
        if let crate::value::Observed::Full(events) = &mut case.events {
            events.iter_mut().enumerate().for_each(|(number, event)| event.at = at(number));
        }
        let mut number = 0..;
        case.each_destroyed(|socket| socket.at = number.next().map(at).unwrap_or_default() + Duration::from_millis(5))
    }

    #[test]
    fn a_pool_that_meets_a_reload_once_and_is_served_after_it_is_no_outage() {
        let finding = pool(0, 60).finding(&PEER_RESET);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.counter_evidence.iter().any(|item| item.text.contains("a reload")), "{finding:?}");
        assert_eq!(pool(0, 10).finding(&PEER_RESET).severity, Severity::Critical, "it did not come back");
        assert_eq!(pool(40, 60).finding(&PEER_RESET).severity, Severity::Critical, "again and again");
    }

    /// A client of TLS says goodbye just after the server's FIN; on another port, or after a pause, it is a request that is lost.
    #[test]
    fn a_close_notify_that_meets_a_close_lost_nothing() {
        let case = |port: u16, pause_ms: u32| {
            let peer = format!("10.0.7.1:{port}");
            let ends = ["10.0.0.9:0", peer.as_str()];
            Case::new()
                .counter("Tcp.ActiveOpens", 0, 40)
                .received(20, TcpState::CloseWait, ends)
                .destroyed_sockets(20, ends, 0, 0)
                .each_destroyed(move |socket| {
                    (socket.data_received_ms, socket.ack_received_ms, socket.data_sent_ms) = (pause_ms + 2, 2, 1);
                    (socket.bytes_received, socket.bytes_sent, socket.unacknowledged) = (Some(4_000), Some(600), 31);
                })
        };
        assert!(case(8443, 0).is_ruled_out(&PEER_RESET));
        assert_eq!(case(8080, 0).finding(&PEER_RESET).severity, Severity::Critical);
        assert_eq!(case(8443, 2_000).finding(&PEER_RESET).severity, Severity::Critical);
    }

    /// The handshake counts as received data: a request within the same tick of the clock is not older than that.
    #[test]
    fn a_request_that_got_no_byte_was_waiting_for_its_answer() {
        let ends = ["10.0.0.9:0", "10.0.7.1:8080"];
        let finding = Case::new()
            .counter("Tcp.ActiveOpens", 0, 20)
            .received(20, TcpState::Established, ends)
            .destroyed_sockets(20, ends, 0, 0)
            .each_destroyed(|socket| {
                (socket.data_received_ms, socket.data_sent_ms) = (3, 3);
                (socket.bytes_received, socket.bytes_sent, socket.unacknowledged) = (Some(0), Some(90), 0);
            })
            .finding(&PEER_RESET);
        let waiting = "a request was waiting for its answer in 20 of 20 connections";
        assert!(finding.evidence.iter().any(|item| item.text == waiting), "{finding:?}");
    }
}
