use std::net::{IpAddr, SocketAddr};

use super::numbers::firewall_reject as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict, Verify};
use super::{place, severity, wording};
use crate::attribution::wire::{Hook, Means, Rejected};
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::evidence::service::Service;
use crate::observation::delta::Reading;
use crate::source::reset_packets::Code;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A packet filter refuses in TCP's place: by RST (`reject with tcp reset`), or by ICMP, which is what `REJECT` of iptables
    /// and `reject` of nftables do when nothing else is said. The rule is on this host (input, forward, output), on the host
    /// that is called, or between. Clients read "Connection refused" (RST, ICMP port unreachable), "No route to host" (ICMP
    /// prohibited), or "Connection reset by peer" in an open connection.
    ///
    /// ## How it shows
    ///
    /// RSTs leave the host and `Tcp.OutRsts` does not move: netfilter builds them itself. By ICMP there is no RST at all:
    /// `Icmp.OutDestUnreachs` grows on the host of the rule; on the caller's `Icmp.InDestUnreachs` and `Tcp.AttemptFails`.
    ///
    /// ## How to confirm
    ///
    /// `nft list ruleset | grep -n reject` and `iptables-save -c | grep REJECT`; with counters, that of the rule grows.
    /// `tcpdump -ni any icmp` shows each ICMP error with the port that was called.
    ///
    /// ## What to change
    ///
    /// Accept the port before the rule, or leave the rule if it is meant.
    ///
    /// ## Look-alikes
    ///
    /// Nothing listens on the port (port-without-listener): then OutRsts moves. A rule that drops answers nothing
    /// (connect-unanswered), and only the caller can tell. The kernel sends a caller only about one ICMP error a second
    /// (`net.ipv4.icmp_ratelimit`): its other connects then wait in vain.
    FIREWALL_REJECT {
        id: "firewall-reject",
        title: "Rejected by the firewall",
        explains: ["handshake-reset", "upstream-refused", "peer-reset", "connect-unanswered"],
        needs: [Window, ResetPackets],
        judge: judge,
    }
}

const UNIT: &str = "rejected segments";

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let wire = match e.wire() {
        Ok(wire) => wire,
        // A rule, or nobody at that address: connect-unanswered tells it.
        Err(missing) if own_errors(e).is_some() => return Err(missing),
        Err(missing) => {
            let findings: Vec<_> = [callers_by_counters(e), rules_by_counters(e)].into_iter().flatten().collect();
            return if findings.is_empty() { Err(missing) } else { Ok(Verdict::Found(findings)) };
        }
    };
    // One that took no notice of the error failed nothing by it.
    let failed = |rejected: &&Rejected| rejected.called_from_here().is_none() || connects(e, rejected) > 0;
    let (served, other): (Vec<_>, Vec<_>) =
        wire.rejected.iter().filter(failed).partition(|rejected| hurts(e, rejected));
    let mut findings: Vec<_> = served.into_iter().take(5).map(|rejected| at_a_place(e, rejected)).collect();
    findings.extend(elsewhere(e, &other));
    if wire.rejected_unnamed > 0 {
        findings.push(unnamed(e, wire.rejected_unnamed));
    }
    if findings.is_empty() {
        // What was not seen may have been a rule's.
        e.balanced()?;
    }
    let otherwise = if wire.incomplete {
        "of the RSTs that were seen leaving this host, TCP sent all, and no ICMP error refused a connect"
    } else {
        "every RST that left this host was sent by TCP, and no ICMP error refused a connect"
    };
    Ok(Verdict::from_findings(findings, otherwise))
}

/// Somebody listens there, or somebody wanted something of another host: a rule that is meant to close a port of this one hits
/// neither.
fn hurts(e: &Evidence<'_>, rejected: &Rejected) -> bool {
    rejected.called.is_some() || is_host_unreachable(rejected) || listener(e, rejected).is_some()
}

/// A rule may say so, but more often nobody answers where the destination was translated to (DNAT).
fn is_host_unreachable(rejected: &Rejected) -> bool {
    rejected.means == Means::Icmp(Code::Host)
}

/// Who listens on the port, where listeners could be seen.
fn listener<'e, 'a>(e: &'e Evidence<'a>, rejected: &Rejected) -> Option<&'e Service<'a>> {
    e.services().ok().and_then(|_| e.service_of_port(rejected.port?))
}

fn at_a_place(e: &Evidence<'_>, rejected: &Rejected) -> Finding {
    let service = listener(e, rejected);
    let count = rejected.count;
    let window = words::seconds(e.window());
    let how = means(rejected.means);
    let (port, called) = (number(rejected.port), rejected.called);
    let unreachable = is_host_unreachable(rejected);
    let summary = match (rejected.hook, called) {
        (_, Some(called)) if unreachable => format!("connects to {called} answered with {how} by {}", rejected.local),
        (_, None) if unreachable => format!("segments to port {port} answered with {how} by this host"),
        (Hook::Input, Some(called)) => format!("answers of {called} rejected with {how} by this host's firewall"),
        (Hook::Output, Some(called)) => format!("connects to {called} rejected with {how} by this host's own firewall"),
        (Hook::Forward, Some(called)) => {
            format!("connects of {} to {called} rejected with {how} by a forward rule of this host", peers(rejected))
        }
        (Hook::Remote, Some(called)) if called.ip() == rejected.local => {
            format!("connects to {called} refused by its firewall ({how})")
        }
        (Hook::Remote, Some(called)) => {
            format!("connects to {called} refused by {} on the way ({how})", rejected.local)
        }
        (Hook::Output, None) => format!("answers of port {port} rejected with {how} by this host's firewall"),
        (_, None) => format!("segments to port {port} rejected with {how} by this host's firewall"),
    };
    let ours = rejected.called_from_here().map(|called| (called, connects(e, rejected)));
    let summary = match ours {
        Some((_, 1)) => format!("1 {}", summary.replacen("connects", "connect", 1)),
        None if count == 1 => format!("1 {}", summary.replacen("segments", "segment", 1)),
        _ => format!("{} {summary}", words::thousands(ours.map_or(count, |(_, connects)| connects))),
    };
    let summary = format!("{summary} in {window}");
    let harm = match (ours, rejected.hook, rejected.port) {
        (Some((called, connects)), ..) => Some(e.harm_of_connects(Target::Called(called), connects)),
        // Answers to SYNs: those connections are in the accept queue of nobody, and in no count.
        (None, Hook::Output, _) => None,
        // What a rule rejects on its way in never was a connection of the service.
        (None, _, Some(port)) if called.is_none() => Some(e.harm_of_connects(Target::Port(port), count)),
        _ => None,
    };
    let harm = harm.map(|harm| severity::lately(e, FIREWALL_REJECT.id, harm));
    let severity = match harm {
        Some(harm) => severity::to_callers(e, &harm),
        // How many of the connects that pass through succeed is not seen here.
        None if count >= numbers::FORWARD => severity::refusals(e, count).min(Severity::Warning),
        None => Severity::Info,
    };
    let confidence = if unreachable { numbers::HOST_UNREACHABLE } else { numbers::AT_A_PLACE };
    let mut finding = wording::active(e, severity, confidence, count, UNIT, summary);
    if unreachable {
        finding = translated(finding, rejected);
    }
    match (service, called) {
        (Some(service), _) => finding = finding.subject(Subject::listener(service).counted(count)),
        (None, Some(called)) => {
            finding = finding
                .subject(Subject::peer(called.ip(), Some(called.port())).counted(count))
                .subjects(place::callers(e, called));
        }
        (None, None) => {}
    }
    let mut peers: Vec<_> = rejected.peers.iter().filter(|_| ours.is_none()).collect();
    peers.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let peers = peers.into_iter().take(3).map(|(peer, count)| Subject::peer(*peer, None).counted(*count));
    let finding = flat(e, finding.subjects(peers).evidence(seen(rejected)), rejected);
    let finding = rate_limited(e, finding, rejected).harm_if(harm);
    let family = Family::of(called.map_or(rejected.local, |called| called.ip()));
    match (rejected.hook, called) {
        (Hook::Remote, Some(called)) => ask_elsewhere(finding, called, rejected),
        (Hook::Forward, Some(called)) => with_remedies(finding, "forward", "dport", Some(called.port()), family),
        (Hook::Output, Some(called)) => with_remedies(finding, "output", "dport", Some(called.port()), family),
        (Hook::Output, None) => with_remedies(finding, "output", "sport", rejected.port, family),
        (_, Some(called)) => with_remedies(finding, "input", "sport", Some(called.port()), family),
        (_, None) => with_remedies(finding, "input", "dport", rejected.port, family),
    }
}

/// What else says so than a rule.
fn translated(finding: Finding, rejected: &Rejected) -> Finding {
    let text = "a DNAT target or a host behind a router that is down, or whose neighbour entry failed, is told of the same way";
    let finding = finding.against(EvidenceItem::fact("reset_packets", "code", text));
    if rejected.hook == Hook::Remote {
        let text =
            format!("See on {} where it translates the address to (DNAT), and whether that host runs", rejected.local);
        return finding.remedy(Remedy::new(text, "the connect succeeds"));
    }
    let text = "See where the port is translated to (DNAT), and start the host there: its neighbour entry is FAILED while it is down";
    finding.remedy(
        Remedy::new(text, "no neighbour entry is FAILED").command(
            ShellCommand::new("nft list ruleset")
                .pipe(ShellCommand::new("grep -n dnat"))
                .then(ShellCommand::new("ip neigh show nud failed")),
        ),
    )
}

/// How many connects of this host were refused. Of an ICMP error that comes while its program is in the kernel the connect takes no
/// notice, and sends its SYN again (net/ipv4/tcp_ipv4.c tcp_v4_err, sock_owned_by_user): that one is answered as well.
fn connects(e: &Evidence<'_>, rejected: &Rejected) -> u64 {
    let count = rejected.count;
    match rejected.means {
        Means::Rst => count,
        Means::Icmp(_) => {
            let first = count.saturating_sub(e.moved("TcpExt.TCPSynRetrans"));
            first.max(e.moved("Tcp.AttemptFails").min(count))
        }
    }
}

fn peers(rejected: &Rejected) -> String {
    match rejected.peers.keys().next() {
        Some(one) if rejected.peers.len() == 1 => one.to_string(),
        _ => words::counted(rejected.peers.len() as u64, "client"),
    }
}

/// As tcpdump and the manual of the filters name it.
fn means(means: Means) -> &'static str {
    match means {
        Means::Rst => "RST",
        Means::Icmp(Code::Port) => "ICMP port unreachable",
        Means::Icmp(Code::Prohibited) => "ICMP prohibited",
        Means::Icmp(Code::Host) => "ICMP host unreachable",
    }
}

/// What the caller's program reads (net/ipv4/icmp.c icmp_err_convert, net/ipv6/icmp.c icmpv6_err_convert).
fn errno(code: Code, reporter: IpAddr) -> &'static str {
    match (code, reporter.to_canonical()) {
        (Code::Port, _) => "Connection refused (111)",
        (Code::Prohibited, IpAddr::V6(_)) => "Permission denied (13)",
        (Code::Prohibited | Code::Host, _) => "No route to host (113)",
    }
}

fn seen(rejected: &Rejected) -> EvidenceItem {
    let count = rejected.count;
    let text = match (rejected.means, rejected.hook) {
        (Means::Rst, Hook::Output) => {
            format!("{} came back on the loopback interface in the name of another host", words::counted(count, "RST"))
        }
        (Means::Rst, Hook::Forward) => {
            format!("{} left this host in the name of another, and had not come in", words::counted(count, "RST"))
        }
        (Means::Rst, _) => format!("{} left this host that its TCP did not send", words::counted(count, "RST")),
        (Means::Icmp(_), Hook::Output) if rejected.called.is_none() => format!(
            "{} was sent by this host to itself {} times: the answers do not leave, and the callers wait for their timeout",
            means(rejected.means),
            words::thousands(count)
        ),
        (Means::Icmp(code), hook) => {
            let how = means(rejected.means);
            let (came, programs) = match hook {
                Hook::Remote => (format!("came from {}", rejected.local), "the programs here"),
                Hook::Output => ("was sent by this host to itself".to_owned(), "the programs here"),
                Hook::Input | Hook::Forward => ("was sent by this host".to_owned(), "the callers"),
            };
            let errno = errno(code, rejected.local);
            format!("{how} {came} {} times, and no RST: {programs} read \"{errno}\"", words::thousands(count))
        }
    };
    EvidenceItem::value("reset_packets", "packets", count as f64, text)
}

fn number(port: Option<u16>) -> String {
    port.map_or_else(|| "?".to_owned(), |port| port.to_string())
}

/// Ports on which nothing listens: the rule does what a closed port does anyway.
fn elsewhere(e: &Evidence<'_>, rejected: &[&Rejected]) -> Option<Finding> {
    let count = rejected.iter().map(|rejected| rejected.count).sum::<u64>();
    let ports: std::collections::BTreeSet<_> = rejected.iter().filter_map(|rejected| rejected.port).collect();
    let first = rejected.first()?;
    let which =
        if ports.len() == 1 { format!("port {}", number(first.port)) } else { format!("{} ports", ports.len()) };
    let summary = format!(
        "{} to {which} without a service rejected with {} by this host's firewall in {}",
        words::counted(count, "segment"),
        means(first.means),
        words::seconds(e.window())
    );
    let subject = Subject { address: Some(first.local), port: first.port, ..Subject::host().counted(count) };
    let finding = wording::benign(e, numbers::ELSEWHERE, count, UNIT, summary)
        .subject(subject)
        .evidence(seen(&Rejected { count, ..Rejected::clone(first) }));
    Some(with_remedies(finding, "input", "dport", first.port, Family::of(first.local)))
}

/// TCP sent RSTs as well, and without events they cannot be told apart.
fn unnamed(e: &Evidence<'_>, count: u64) -> Finding {
    let summary =
        format!("{} sent by this host's firewall in {}", words::counted(count, "RST"), words::seconds(e.window()));
    let text = "more RSTs left this host than its TCP sent";
    let finding = wording::active(e, Severity::Info, numbers::COUNTED, count, UNIT, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::value("reset_packets", "packets", count as f64, text))
        .against(EvidenceItem::fact("reset_events", "reason", "without reset events the ports are not known"));
    with_remedies(finding, "input, forward or output", "dport", None, Family::Either)
}

/// Destination unreachable of both families.
struct Unreachables {
    /// That of the family with more of them.
    reading: Reading,
    count: u64,
    family: Family,
}

fn unreachables(e: &Evidence<'_>, names: [&str; 2]) -> Option<Unreachables> {
    let [four, six] = names.map(|name| e.counter(name));
    let (four, six) = (four.ok()?, six.ok());
    let more = six.as_ref().map_or(0, |six| six.delta);
    let family = match (four.delta, more) {
        (0, 1..) => Family::V6,
        (_, 0) => Family::V4,
        _ => Family::Either,
    };
    let count = four.delta + more;
    let reading = six.filter(|six| six.delta > four.delta).unwrap_or(four);
    Some(Unreachables { reading, count, family })
}

fn came(e: &Evidence<'_>) -> Option<Unreachables> {
    unreachables(e, ["Icmp.InDestUnreachs", "Ip6.Icmp6InDestUnreachs"])
}

/// But for those that UDP caused.
fn sent(e: &Evidence<'_>) -> Option<Unreachables> {
    let mut sent = unreachables(e, ["Icmp.OutDestUnreachs", "Ip6.Icmp6OutDestUnreachs"])?;
    sent.count = sent.count.saturating_sub(e.counter("Udp.NoPorts").ok()?.delta + e.moved("Ip6.Udp6NoPorts"));
    Some(sent)
}

/// ICMP errors that this host in all likelihood sent to itself, by counters, while connects of it failed: for its own connects the
/// kernel says "host unreachable" where no neighbour answers (net/ipv4/arp.c arp_error_report, net/ipv6/ndisc.c
/// ndisc_error_report), and a reject rule for what leaves answers in the same way.
pub fn own_errors(e: &Evidence<'_>) -> Option<u64> {
    if e.wire().is_ok() {
        // Packets tell whose they were.
        return None;
    }
    let failed = e.estimate().ok()?.refused_connects;
    let (sent, came) = (sent(e)?.count, came(e)?.count);
    let own = sent.min(came);
    (failed > 0 && own * 2 > sent.max(came)).then_some(own)
}

/// Own connects, where packets were not seen: each ICMP error that came in ended one, as far as so many ended.
fn callers_by_counters(e: &Evidence<'_>) -> Option<Finding> {
    let came = came(e)?;
    let count = came.count.min(e.estimate().ok()?.refused_connects);
    if count == 0 {
        return None;
    }
    let summary = format!(
        "{} of programs on this host refused by ICMP, as firewalls do, in {}",
        words::counted(count, "connect"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, severity::refusals(e, count), numbers::ICMP_COUNTED, count, UNIT, summary)
        .subject(Subject::host())
        .evidence(wording::moved(&came.reading, "ICMP errors that came in"))
        .against(EvidenceItem::fact("reset_packets", "packets", "whom they called is told by the packets only"));
    Some(finding.remedy(see_errors()))
}

/// A rule of this host, where packets were not seen: ICMP errors that UDP did not cause.
fn rules_by_counters(e: &Evidence<'_>) -> Option<Finding> {
    let sent = sent(e)?;
    if sent.count == 0 {
        return None;
    }
    let summary = format!(
        "{} refused by ICMP, as a reject rule does, in {}",
        words::counted(sent.count, "packet"),
        words::seconds(e.window())
    );
    let finding = wording::active(e, Severity::Info, numbers::ICMP_SENT, sent.count, UNIT, summary)
        .subject(Subject::host())
        .evidence(wording::moved(&sent.reading, "ICMP errors that left this host, more than UDP caused"))
        .against(EvidenceItem::fact("reset_packets", "packets", "what they answered is told by the packets only"));
    Some(with_remedies(finding, "input, forward or output", "dport", None, sent.family))
}

fn flat(e: &Evidence<'_>, finding: Finding, rejected: &Rejected) -> Finding {
    match (e.counter("Tcp.OutRsts"), rejected.hook) {
        (_, Hook::Remote) => match e.counter("Tcp.AttemptFails") {
            Ok(reading) if reading.delta > 0 => finding.evidence(wording::moved(&reading, "connects that failed")),
            _ => finding,
        },
        (Ok(reading), _) if reading.delta == 0 && rejected.means == Means::Rst => {
            finding.evidence(wording::moved(&reading, "TCP itself sent none"))
        }
        _ => finding,
    }
}

/// The kernel tells one caller of a refusal once a second (net/ipv4/icmp.c icmpv4_xrlim_allow).
fn rate_limited(e: &Evidence<'_>, finding: Finding, rejected: &Rejected) -> Finding {
    let ours = matches!(rejected.means, Means::Icmp(_)) && rejected.hook != Hook::Remote;
    match e.counter("Icmp.OutRateLimitHost") {
        Ok(reading) if ours && reading.delta > 0 => finding.evidence(wording::moved(
            &reading,
            "ICMP errors that were not sent (icmp_ratelimit): these callers wait for their timeout",
        )),
        _ => finding,
    }
}

fn ask_elsewhere(finding: Finding, called: SocketAddr, rejected: &Rejected) -> Finding {
    let verify = Verify::scan("shows no refused connect, and the connect succeeds");
    let text = if called.ip() == rejected.local {
        format!("Open port {} for this host in the firewall of {}", called.port(), called.ip())
    } else {
        format!("Have {} let connects from here to {called} pass: ask who runs it", rejected.local)
    };
    finding
        .remedy(Remedy::new(text, verify).command(ShellCommand::new("nc -vz").arg(called.ip()).arg(called.port())))
        .remedy(see_errors())
}

fn see_errors() -> Remedy {
    Remedy::new("See which address sends the errors, about which port", "each error names both")
        .command(ShellCommand::new("tcpdump -ni any").arg("icmp[0] == 3 or icmp6[0] == 1"))
}

/// Whose rules are to be looked at: iptables and ip6tables show their own only.
#[derive(Debug, Clone, Copy)]
pub enum Family {
    V4,
    V6,
    Either,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["iptables-save -c"],
            Self::V6 => &["ip6tables-save -c"],
            Self::Either => &["iptables-save -c", "ip6tables-save -c"],
        }
    }
}

/// `side`: whose port the rule may name, `sport` or `dport`.
fn with_remedies(finding: Finding, chain: &str, side: &'static str, port: Option<u16>, family: Family) -> Finding {
    let rules = ShellCommand::new("grep -E");
    let rules = match port {
        Some(port) => rules.arg(("counter|", side, (" ", port))),
        None => rules.arg(("counter|", side)),
    };
    finding.remedy(find_rule(chain, family)).remedy(
        Remedy::new("Where rules have counters, see which one grows", "the counter of one rule grows")
            .command(ShellCommand::new("nft list ruleset").pipe(rules)),
    )
}

pub fn find_rule(chain: &str, family: Family) -> Remedy {
    let rules = ShellCommand::new("nft list ruleset").pipe(ShellCommand::new("grep -n reject"));
    let rejected = |table| ShellCommand::new(table).quiet().pipe(ShellCommand::new("grep REJECT"));
    Remedy::new(
        format!("Find the rule in the {chain} chain; accept the connection before it, if it is meant to work"),
        "rstdoctor scan shows no rejected segments",
    )
    .command(family.tables().iter().fold(rules, |looks, table| looks.then(rejected(table))))
}

#[cfg(test)]
mod tests;
