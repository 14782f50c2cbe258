use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::numbers::retransmission_timeout as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict};
use super::{place, severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
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
    /// `TcpExt.TCPAbortOnTimeout` grows and `Tcp.OutRsts` does not (net/ipv4/tcp_timer.c tcp_write_timeout). That takes a
    /// quarter of an hour with the default of tcp_retries2, and a program mostly gives up before: then sockets that retransmit and
    /// get no acknowledgement are all that shows it.
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
    /// Keepalive that gives up sends a RST (keepalive-timeout). A full accept queue lets clients time out in connect, or takes no
    /// byte of what they send after it: the kernel of the server drops the last packet of the handshake.
    RETRANSMISSION_TIMEOUT {
        id: "retransmission-timeout",
        title: "Data not acknowledged",
        explains: [],
        needs: [Window, Netstat, Snmp],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let reading = e.counter("TcpExt.TCPAbortOnTimeout")?;
    let stuck = stuck(e);
    if !stuck.is_empty() {
        return Ok(Verdict::Found(stuck));
    }
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
    let now: u64 = groups.iter().map(|group| group.sockets).sum();
    // Vanished peers are normal. Many at once while others retransmit still is a path or a host that is down.
    let severity = if silent >= numbers::MANY && now >= severity::FEW { Severity::Warning } else { Severity::Info };
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
    Ok(Verdict::Found(vec![with_remedies(finding, None)]))
}

/// Places where a good part of the connections has sent data that nobody acknowledges.
fn stuck(e: &Evidence<'_>) -> Vec<Finding> {
    let mut places: BTreeMap<Target, (u64, BTreeSet<IpAddr>)> = BTreeMap::new();
    for group in e.groups(GroupKind::Retransmitting).unwrap_or_default() {
        for (peer, count) in group.by_peer() {
            let target = if group.accepted { Target::Port(group.port) } else { Target::Called(peer) };
            let place = places.entry(target).or_default();
            place.0 = if group.accepted { group.sockets } else { count };
            place.1.insert(peer.ip());
        }
    }
    let finding = |(target, (count, peers)): (Target, (u64, BTreeSet<IpAddr>))| {
        let harm = e.harm(target, count, None);
        // Peers vanish from every service, and stay in its sockets for minutes.
        let many = count >= severity::FEWEST && harm.surely().is_some_and(|low| low >= numbers::STUCK);
        many.then(|| stuck_at(e, target, harm, &peers))
    };
    places.into_iter().filter_map(finding).collect()
}

fn stuck_at(e: &Evidence<'_>, target: Target, harm: Harm, peers: &BTreeSet<IpAddr>) -> Finding {
    let (subjects, place, severity) = match target {
        Target::Port(port) => {
            let service = e.services().ok().and_then(|all| all.iter().find(|service| service.port == port));
            let subjects =
                service.map(Subject::listener).into_iter().chain(peers.first().map(|ip| Subject::peer(*ip, None)));
            (subjects.collect::<Vec<_>>(), format!("on port {port}"), severity::to_clients(e, &harm))
        }
        Target::Called(called) => {
            let peer = Subject::peer(called.ip(), Some(called.port()));
            let subjects = std::iter::once(peer).chain(place::callers(e, called)).collect();
            (subjects, format!("to {called}"), severity::to_callers(e, &harm))
        }
    };
    let summary = format!(
        "{} {place} {} sent data that nobody acknowledges: packets are lost on the way, in one direction or both",
        harm.counted("connection"),
        if harm.failures == 1 { "has" } else { "have" },
    );
    let again = words::counted(harm.failures, "socket");
    let finding = wording::active(e, severity, numbers::STUCK_NOW, harm.failures, "connections", summary)
        .subjects(subjects)
        .evidence(EvidenceItem::value(
            "sockets",
            "retransmitting",
            harm.failures as f64,
            format!("{again} sent the same data three times and more, and no acknowledgement came"),
        ))
        .against(EvidenceItem::fact(
            "sockets",
            "retransmitting",
            "a peer that vanished, and one whose accept queue is full, look the same from here",
        ))
        .harm(harm);
    with_remedies(finding, peers.first())
}

fn with_remedies(finding: Finding, peer: Option<&IpAddr>) -> Finding {
    let look =
        Remedy::new("See which peers do not answer, then look at them and at the path", "ss shows no growing backoff")
            .command(ShellCommand::new("ss -tnoi").pipe(ShellCommand::new("grep -B1 backoff")));
    let mtu = Remedy::sysctl(
        "If only large packets are lost, let TCP find the path's MTU",
        "net.ipv4.tcp_mtu_probing",
        1,
        "the transfer goes on",
    );
    match peer {
        // Small ones pass: the handshake did.
        Some(peer) => finding
            .remedy(
                Remedy::new("See whether only large packets are lost on the way", "the reply comes at every size")
                    .command(ShellCommand::new("ping -c 3 -M do -s 1472").arg(peer)),
            )
            .remedy(mtu)
            .remedy(look),
        None => finding.remedy(look).remedy(mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, group, process};
    use crate::source::socket_dump::SocketDump;

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

    /// Large packets vanish on the way (a tunnel's MTU): each request hangs until its client gives up, and no counter of the
    /// kernel's own giving up moves for a quarter of an hour.
    #[test]
    fn data_that_nobody_acknowledges_is_told_before_the_kernel_gives_up() {
        let case = |stuck: u64, served: u16| {
            let groups = vec![group(GroupKind::Retransmitting, 80, stuck, 0, 3_000)];
            Case::new()
                .counter("Tcp.OutRsts", 0, 0)
                .counter("TcpExt.TCPAbortOnTimeout", 3, 0)
                .listener("0.0.0.0:80", 128, 0, 0, &process(4121, "nginx"))
                .destroyed_sockets(served, ["10.0.0.9:80", "10.0.3.7:40000"], 0, 0)
                .socket_dump(SocketDump::default(), SocketDump { groups, ..SocketDump::default() })
        };
        let finding = case(4, 4).finding(&RETRANSMISSION_TIMEOUT);
        assert!(finding.severity < Severity::Info && finding.confidence < 0.8, "{finding:?}");
        assert!(finding.summary.starts_with("all 4 connections on port 80 have sent data"), "{}", finding.summary);
        assert!(case(4, 200).is_ruled_out(&RETRANSMISSION_TIMEOUT), "clients that vanished");
        assert!(case(2, 2).is_ruled_out(&RETRANSMISSION_TIMEOUT), "two are anybody's chance");
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&RETRANSMISSION_TIMEOUT), Some("netstat"));
    }
}
