use super::numbers::packets_discarded as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify, wording};
use crate::evidence::Evidence;
use crate::observation::delta::Reading;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// This host itself throws away what arrives, or cannot answer it, and tells nobody: the caller sends its SYN again until it
    /// times out. The packets come by an interface that does not lead back to their sender (`rp_filter`), carry no or a wrong
    /// signature (TCP-MD5 and TCP-AO, BGP), too small a TTL (`IP_MINTTL`, BGP's `ttl-security`) or a wrong checksum, or there
    /// is no route for the answer.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.IPReversePathFilter`, `TCPMD5NotFound`, `TCPMD5Unexpected`, `TCPMD5Failure`, `TCPAORequired`,
    /// `TCPAOKeyNotFound`, `TCPAOBad`, `TCPMinTTLDrop` or `Tcp.InCsumErrors` grow; without a route `Ip.OutNoRoutes` together
    /// with `TcpExt.ListenDrops`. The listener sees nothing: its queue stays empty.
    ///
    /// ## How to confirm
    ///
    /// `ip route get CLIENT` leads back by the interface of the SYNs (`tcpdump -ni any 'tcp[13] & 2 != 0'`).
    ///
    /// ## What to change
    ///
    /// The route to the clients, `rp_filter=2` where paths are asymmetric on purpose, the key at both ends, or the device
    /// that damages checksums (offload of an overlay: `ethtool -K DEV tx-checksum-ip-generic off`).
    ///
    /// ## Look-alikes
    ///
    /// A firewall's `drop` looks the same to the caller and moves none of these counters. Spoofed packets from the internet
    /// move some of them a little, and harm nobody.
    PACKETS_DISCARDED {
        id: "packets-discarded",
        title: "Packets discarded by this host",
        explains: [],
        needs: [Window, Netstat],
        judge: judge,
    }
}

/// A counter of packets that this host did not take.
struct Discard {
    counter: &'static str,
    /// Its name in nstat(8).
    nstat: &'static str,
    /// `12 packets` ...
    what: &'static str,
    meaning: &'static str,
    fix: &'static str,
    look: fn() -> ShellCommand,
}

/// net/ipv4/proc.c, net/ipv4/fib_frontend.c fib_validate_source(), net/ipv4/tcp_ipv4.c tcp_v4_rcv(), include/net/tcp.h
/// tcp_inbound_hash().
const DISCARDS: &[Discard] = &[
    Discard {
        counter: "TcpExt.IPReversePathFilter",
        nstat: "TcpExtIPReversePathFilter",
        what: "dropped by rp_filter: their sender is not reached by the interface that they came by",
        meaning: "packets of which the route back leads by another interface",
        fix: "Let the route to the clients lead back by the interface of their packets; if paths are asymmetric on purpose: \
              net.ipv4.conf.all.rp_filter=2",
        look: || ShellCommand::new("sysctl -a -r").arg("net.ipv4.conf.*[.]rp_filter"),
    },
    Discard {
        counter: "TcpExt.TCPMD5NotFound",
        nstat: "TcpExtTCPMD5NotFound",
        what: "dropped: without the TCP-MD5 signature that a program here demands",
        meaning: "segments without a signature",
        fix: "Set the same password at both ends (BGP: neighbor password)",
        look: keys,
    },
    Discard {
        counter: "TcpExt.TCPMD5Unexpected",
        nstat: "TcpExtTCPMD5Unexpected",
        what: "dropped: signed with TCP-MD5, and no program here has a key for them",
        meaning: "segments with a signature that was not asked for",
        fix: "Set the same password at both ends (BGP: neighbor password)",
        look: keys,
    },
    Discard {
        counter: "TcpExt.TCPMD5Failure",
        nstat: "TcpExtTCPMD5Failure",
        what: "dropped: their TCP-MD5 signature is wrong",
        meaning: "segments with a signature by another key",
        fix: "Set the same password at both ends (BGP: neighbor password); a device that translates addresses breaks signatures",
        look: complaints,
    },
    Discard {
        counter: "TcpExt.TCPAORequired",
        nstat: "TcpExtTCPAORequired",
        what: "dropped: without the TCP-AO signature that a program here demands",
        meaning: "segments without a signature",
        fix: "Set the same key chain at both ends",
        look: complaints,
    },
    Discard {
        counter: "TcpExt.TCPAOKeyNotFound",
        nstat: "TcpExtTCPAOKeyNotFound",
        what: "dropped: signed with a TCP-AO key that no program here has",
        meaning: "segments with an unknown key",
        fix: "Set the same key chain at both ends",
        look: complaints,
    },
    Discard {
        counter: "TcpExt.TCPAOBad",
        nstat: "TcpExtTCPAOBad",
        what: "dropped: their TCP-AO signature is wrong",
        meaning: "segments with a signature by another key",
        fix: "Set the same key chain at both ends",
        look: complaints,
    },
    Discard {
        counter: "TcpExt.TCPMinTTLDrop",
        nstat: "TcpExtTCPMinTTLDrop",
        what: "dropped: their TTL is below the limit of the program (IP_MINTTL)",
        meaning: "segments that came over more hops than the program allows",
        fix: "Raise the number of hops that the program allows (BGP: ttl-security hops), or find the longer path",
        look: || ShellCommand::new("traceroute -n CLIENT"),
    },
    Discard {
        counter: "Tcp.InCsumErrors",
        nstat: "TcpInCsumErrors",
        what: "dropped: their checksum is wrong",
        meaning: "segments with a wrong checksum",
        fix: "Find the device that damages them; on virtual networks, switch checksum offload off at the sender",
        look: || ShellCommand::new("ethtool -k eth0").pipe(ShellCommand::new("grep checksum")),
    },
];

/// Who has keys, as root.
fn keys() -> ShellCommand {
    ShellCommand::new("ss -lnti").pipe(ShellCommand::new("grep -B1 md5keys"))
}

/// The kernel logs each segment with a signature that does not fit, but not more than a few a second.
fn complaints() -> ShellCommand {
    ShellCommand::new("dmesg -T")
        .pipe(ShellCommand::new("grep -E").arg("TCP: .*(MD5|AO)"))
        .pipe(ShellCommand::new("tail"))
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let drops = e.counter("TcpExt.ListenDrops")?;
    let mut findings: Vec<Finding> = DISCARDS.iter().filter_map(|discard| discarded(e, discard)).collect();
    findings.extend(without_route(e, &drops));
    if findings.is_empty() {
        return Ok(match DISCARDS.iter().any(|discard| e.counter(discard.counter).is_ok()) {
            true => Verdict::RuledOut("no counter of discarded packets moved".to_owned()),
            false => wording::still(&drops),
        });
    }
    Ok(Verdict::Found(findings))
}

/// So many as fail connections are an alarm; a few beside many connections are strangers.
fn severity(e: &Evidence<'_>, events: u64) -> Severity {
    let opened = e.moved("Tcp.PassiveOpens").saturating_add(e.moved("Tcp.ActiveOpens"));
    let many = events >= numbers::MANY && events.saturating_mul(numbers::ONE_IN) >= opened;
    if many { Severity::Warning } else { Severity::Info }
}

fn discarded(e: &Evidence<'_>, discard: &Discard) -> Option<Finding> {
    let reading = e.counter(discard.counter).ok().filter(|reading| reading.delta > 0)?;
    let events = reading.delta;
    let summary = format!("{} {} in {}", words::counted(events, "packet"), discard.what, words::seconds(e.window()));
    let name = reading.metric.rsplit('.').next().unwrap_or_default();
    let verify = Verify::flat(discard.nstat);
    let finding = match severity(e, events) {
        Severity::Info => wording::benign(e, numbers::COUNTED, events, "packets", summary),
        severity => wording::active(e, severity, numbers::COUNTED, events, "packets", summary),
    };
    Some(
        finding
            .subject(Subject::host())
            .evidence(wording::moved(&reading, discard.meaning))
            .against(EvidenceItem::fact("netstat", name, "whose packets they are is not counted"))
            .remedy(Remedy::new(discard.fix, verify).command((discard.look)())),
    )
}

/// A listener cannot answer a SYN without a route (net/ipv4/tcp_input.c tcp_conn_request()): it counts as a listen drop, in no
/// counter of its own.
fn without_route(e: &Evidence<'_>, drops: &Reading) -> Option<Finding> {
    let no_route = e.counter("Ip.OutNoRoutes").ok()?;
    let lost = Some(e.ledger().dropped.count_of("no-route")).filter(|lost| *lost > 0)?;
    let summary = format!(
        "{} lost in {}: this host has no route for its answer",
        words::counted(lost, "connection attempt"),
        words::seconds(e.window())
    );
    let none_accepted = e.counter("Tcp.PassiveOpens").is_ok_and(|opened| opened.delta == 0);
    let severity = match severity(e, lost) {
        Severity::Warning if none_accepted && lost >= numbers::OUTAGE => Severity::Critical,
        severity => severity,
    };
    let verify = Verify::by(
        ShellCommand::new("ip route get CLIENT"),
        "names an interface, and nstat -az IpOutNoRoutes stays flat",
    );
    let finding = wording::active(e, severity, numbers::NO_ROUTE, lost, "connection attempts", summary)
        .subject(Subject::host())
        .evidence(wording::moved(&no_route, "packets for which this host found no route"))
        .evidence(wording::moved(drops, "SYNs that a listener dropped, not for a full queue"))
        .remedy(
            Remedy::new(
                "Give this host a route to its clients; one of type unreachable, prohibit or blackhole is none",
                verify,
            )
            .command(
                ShellCommand::new("ip route show table all")
                    .pipe(ShellCommand::new("grep -E").arg("^(default|unreachable|prohibit|blackhole)")),
            ),
        );
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{Status, diagnose};
    use crate::observation::testing::Case;

    fn host() -> Case {
        Case::new().counter("Tcp.OutRsts", 0, 0).counter("TcpExt.ListenOverflows", 0, 0)
    }

    #[test]
    fn answers_without_a_route_are_the_lost_attempts() {
        let case = host().counter("TcpExt.ListenDrops", 4, 91).counter("Ip.OutNoRoutes", 0, 91).counter(
            "Tcp.PassiveOpens",
            100,
            0,
        );
        let finding = case.finding(&PACKETS_DISCARDED);
        assert_eq!(finding.severity, Severity::Critical);
        assert!(finding.summary.contains("91 connection attempts lost"), "{}", finding.summary);
        assert_eq!(Evidence::new(case.view()).ledger().dropped.unexplained(), Some(0));
        // A program that calls where no route leads loses nobody's connects.
        let calls = host().counter("TcpExt.ListenDrops", 4, 0).counter("Ip.OutNoRoutes", 0, 91);
        assert!(calls.is_ruled_out(&PACKETS_DISCARDED));
        // A full queue has its own counter.
        let full = Case::new().counter("TcpExt.ListenOverflows", 0, 91).counter("TcpExt.ListenDrops", 4, 91).counter(
            "Ip.OutNoRoutes",
            0,
            91,
        );
        assert!(full.is_ruled_out(&PACKETS_DISCARDED));
    }

    #[test]
    fn what_rp_filter_and_signatures_drop_is_an_alarm_unless_it_is_little() {
        for counter in ["TcpExt.IPReversePathFilter", "TcpExt.TCPMD5NotFound", "Tcp.InCsumErrors"] {
            let case = |events, opened| {
                host().counter("TcpExt.ListenDrops", 0, 0).counter(counter, 7, events).counter(
                    "Tcp.PassiveOpens",
                    0,
                    opened,
                )
            };
            assert_eq!(case(75, 0).finding(&PACKETS_DISCARDED).severity, Severity::Warning, "{counter}");
            assert_eq!(case(6, 3_000).finding(&PACKETS_DISCARDED).severity, Severity::Info, "{counter}");
            assert!(case(0, 3_000).is_ruled_out(&PACKETS_DISCARDED));
        }
    }

    #[test]
    fn attempts_lost_for_no_known_reason_are_never_ok() {
        let lost = |count| {
            let case = host().counter("TcpExt.ListenDrops", 0, count).counter("Tcp.PassiveOpens", 0, 40);
            diagnose(case.view())
        };
        assert_eq!(lost(91).status, Status::Unknown);
        assert!(lost(91).summary.contains("91 connection attempts"), "{}", lost(91).summary);
        assert_eq!(lost(0).status, Status::Ok);
        assert_eq!(Case::new().missing(&PACKETS_DISCARDED), Some("netstat"));
    }
}
