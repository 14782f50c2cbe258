use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::numbers::ephemeral_ports_exhausted as numbers;
use super::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Setting, Severity, State, Subject, Verdict, Verify,
};
use crate::evidence::Evidence;
use crate::source::owners::Process;
use crate::source::socket_dump::Destination;
use crate::value::shell::ShellCommand;
use crate::value::{EphemeralPorts, Missing, words};

cause! {
    /// ## What happens
    ///
    /// Each outgoing connection needs a local port that is unique for its source address, destination address and
    /// destination port. The kernel takes it from `net.ipv4.ip_local_port_range`, about 28,000 by default. A closed
    /// connection keeps its port in TIME_WAIT for 60 s: at more than about 470 new connections a second towards one
    /// destination there is none left.
    ///
    /// ## How it shows
    ///
    /// connect() fails with "Cannot assign requested address" (EADDRNOTAVAIL, 99) towards one destination, others work.
    /// No kernel counter moves. A program that binds a source address and port 0 before it connects takes a port that is
    /// unique for that address: all destinations share one range, and bind() fails with "Address already in use"
    /// (EADDRINUSE, 98).
    ///
    /// ## How to confirm
    ///
    /// `ss -tanH dst ADDRESS dport = :PORT | wc -l` against `sysctl net.ipv4.ip_local_port_range`.
    ///
    /// ## What to change
    ///
    /// Where bind() comes first: set IP_BIND_ADDRESS_NO_PORT. Keep connections alive in the caller (a pool). Then widen the range. Then `net.ipv4.tcp_tw_reuse=1`, which lets
    /// connect() take over a port in TIME_WAIT after one second.
    ///
    /// ## Look-alikes
    ///
    /// A high total of TIME_WAIT is harmless: only the number towards one destination counts, and a server does not use
    /// local ports for connections that it accepts.
    EPHEMERAL_PORTS_EXHAUSTED {
        id: "ephemeral-ports-exhausted",
        title: "Local ports exhausted",
        explains: [],
        needs: [Sockets],
        judge: judge,
    }
}

const RANGE: &str = "net.ipv4.ip_local_port_range";

fn judge(e: &Evidence<'_>) -> Judgement {
    let range = e.sysctl(RANGE)?;
    let reserved = e.sysctl("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
    let available = available(range, reserved)
        .ok_or_else(|| Missing::new("sysctl", format!("{RANGE} is not two port numbers: {range:?}")))?;
    let mut findings: Vec<_> = e
        .destinations()?
        .iter()
        .filter(|destination| share(taken(e, destination), available) >= numbers::NEAR)
        .map(|destination| exhausted(e, destination, available, range))
        .collect();
    if findings.is_empty() {
        findings.extend(bound_first(e, available, range)?);
    }
    let otherwise = format!("no destination uses 80 % of the {} local ports", words::thousands(available));
    Ok(Verdict::from_findings(findings, otherwise))
}

/// All ports of a source address are used and hardly one of them twice, towards several destinations: bind() to port 0 takes a
/// port that no other socket of this address has (net/ipv4/inet_connection_sock.c inet_csk_find_open_port), whereas connect()
/// alone shares them between destinations.
fn bound_first(e: &Evidence<'_>, available: u64, range: &str) -> Result<Vec<Finding>, Missing> {
    let dump = e.socket_dump()?;
    let Some(ports) = EphemeralPorts::parse(range) else { return Ok(Vec::new()) };
    if share(dump.ports_used(ports), available) < numbers::NONE_LEFT {
        return Ok(Vec::new());
    }
    let mut by_source: BTreeMap<IpAddr, Vec<&Destination>> = BTreeMap::new();
    for destination in &dump.destinations {
        by_source.entry(destination.source).or_default().push(destination);
    }
    let used = |to: &[&Destination]| to.iter().map(|destination| destination.ports_used).sum::<u64>();
    let whole = |to: &[&Destination]| (numbers::NONE_LEFT..=1.0).contains(&share(used(to), available));
    let full = by_source.into_iter().filter(|(_, to)| to.len() > 1 && whole(to));
    Ok(full.map(|(source, to)| no_port_to_bind(e, source, &to, used(&to), range)).collect())
}

fn no_port_to_bind(e: &Evidence<'_>, source: IpAddr, to: &[&Destination], used: u64, range: &str) -> Finding {
    let owners = e.holders(to.iter().flat_map(|destination| destination.inodes.iter().copied()));
    let who = owners.first().map_or_else(|| "a program".to_owned(), |process| process.label());
    let summary = format!(
        "no local port is left on {source}: {who} binds before it connects, so all {} destinations share one range",
        to.len()
    );
    let impact = Impact { events: 0, per_s: 0.0, unit: "connection attempts" };
    let count = of_host(ShellCommand::new("ss -tanH src"), source).pipe(ShellCommand::new("wc -l"));
    let verify = Verify::by(count, "may exceed the range, and bind() no longer fails");
    Finding::new(State::Active, Severity::Critical, numbers::GONE_FOR_BIND, impact, summary)
        .subjects(owners.iter().take(4).map(|process| Subject::process(process)))
        .evidence(EvidenceItem::value(
            "sockets",
            "ports_used",
            used as f64,
            format!(
                "{} of the local ports of {source} are used, towards {}, and hardly one of them twice: bind() fails with \
                 \"Address already in use\" (98)",
                words::thousands(used),
                words::counted(to.len() as u64, "destination")
            ),
        ))
        .evidence(range_is(range))
        .remedy(
            Remedy::new(
                format!("Let {who} set IP_BIND_ADDRESS_NO_PORT before bind(), so that connect() chooses the port"),
                verify.clone(),
            )
            .restart(Restart::Service),
        )
        .remedy(Remedy::sysctl(
            "Widen the range (keep your own listening ports out: ip_local_reserved_ports)",
            RANGE,
            "10240 65535",
            verify,
        ))
}

fn of_host(command: ShellCommand, address: IpAddr) -> ShellCommand {
    if address.is_ipv6() { command.arg(("[", address, "]")) } else { command.arg(address) }
}

fn range_is(range: &str) -> EvidenceItem {
    EvidenceItem::fact(
        "sysctl",
        RANGE,
        format!("{RANGE} is {}", range.split_whitespace().collect::<Vec<_>>().join(" ")),
    )
}

/// Number of ports in the range that are not reserved. The kernel prints reserved ranges merged, so none overlap
/// (kernel/sysctl.c proc_do_large_bitmap).
fn available(range: &str, reserved: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
    let all = u64::from(high.checked_sub(low)?) + 1;
    let blocked: u64 = reserved
        .split(',')
        .filter_map(|part| {
            let part = part.trim();
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (from.parse::<u16>().ok()?.max(low), to.parse::<u16>().ok()?.min(high));
            to.checked_sub(from).map(|length| u64::from(length) + 1)
        })
        .sum();
    all.checked_sub(blocked).filter(|left| *left > 0)
}

fn share(taken: u64, available: u64) -> f64 {
    taken as f64 / available as f64
}

/// connect() may take over a port in TIME_WAIT: 1 always, 2 (the default since 4.19) on loopback, both only with
/// timestamps (net/ipv4/tcp_ipv4.c tcp_twsk_unique).
fn reuses(e: &Evidence<'_>, destination: &Destination) -> bool {
    let loopback = match destination.address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback(),
    };
    let allowed = match e.sysctl_number("net.ipv4.tcp_tw_reuse") {
        Ok(1) => true,
        Ok(2) => loopback,
        _ => false,
    };
    allowed && e.sysctl_number("net.ipv4.tcp_timestamps") != Ok(0)
}

/// Ports that connect() cannot use.
fn taken(e: &Evidence<'_>, destination: &Destination) -> u64 {
    if reuses(e, destination) {
        destination.ports_used.saturating_sub(destination.time_wait)
    } else {
        destination.ports_used
    }
}

fn exhausted(e: &Evidence<'_>, destination: &Destination, available: u64, range: &str) -> Finding {
    let taken = taken(e, destination);
    let share = share(taken, available).min(1.0);
    let owners = e.holders(destination.inodes.iter().copied());
    let to = SocketAddr::new(destination.address, destination.port);
    let from = destination.source;
    let gone = share >= numbers::NONE_LEFT;
    let who = owners.first().map_or(String::new(), |process| format!(" ({})", process.label()));
    let (state, severity, confidence, summary) = match gone {
        true => (
            State::Active,
            Severity::Critical,
            numbers::GONE,
            format!("no local port is left from {from} to {to}{who}: new connections fail"),
        ),
        false => (
            State::Risk,
            Severity::Warning,
            numbers::NEARLY_GONE,
            format!("{} of the local ports from {from} to {to} are in use{who}", words::percent(share)),
        ),
    };
    // The kernel counts no failed connect() of this kind.
    let impact = Impact { events: 0, per_s: 0.0, unit: "connection attempts" };
    let mut finding = Finding::new(state, severity, confidence, impact, summary)
        .subject(Subject::peer(destination.address, Some(destination.port)).counted(taken))
        .subjects(owners.iter().take(4).map(|process| Subject::process(process)))
        .evidence(EvidenceItem::value(
            "sockets",
            "ports_used",
            taken as f64,
            format!("{} of {} local ports used towards {to}", words::thousands(taken), words::thousands(available)),
        ))
        .evidence(EvidenceItem::value(
            "sockets",
            "time_wait",
            destination.time_wait as f64,
            format!("{} of its ports are in TIME_WAIT", words::thousands(destination.time_wait)),
        ))
        .evidence(range_is(range));
    if owners.is_empty() && e.hidden_processes() > 0 {
        finding =
            finding.against(EvidenceItem::fact("owners", "denied", "who connects is not visible to you: run as root"));
    }
    remedies(e, destination, taken, &owners, finding)
}

fn remedies(e: &Evidence<'_>, destination: &Destination, taken: u64, owners: &[&Process], finding: Finding) -> Finding {
    let to = SocketAddr::new(destination.address, destination.port);
    let count = of_host(ShellCommand::new("ss -tanH dst"), destination.address).arg(("dport = :", destination.port));
    let verify = Verify::by(count.pipe(ShellCommand::new("wc -l")), "falls well below the range");
    let nginx = owners.iter().any(|process| process.name == "nginx");
    let short_lived = destination.time_wait * 2 >= destination.ports_used;
    let caller = owners.first().map_or("the caller".to_owned(), |process| process.label());
    let text = if short_lived {
        format!("Let {caller} keep its connections to {to} alive, in a pool")
    } else {
        format!("Limit how many connections {caller} holds open to {to}")
    };
    let pool = Remedy::new(text, verify.clone());
    let pool = if nginx && short_lived {
        pool.setting(Setting {
            note: Some("with proxy_http_version 1.1 and proxy_set_header Connection \"\"; in the location".to_owned()),
            ..Setting::config("keepalive 64;", "nginx.conf", Some("upstream block"), Restart::Reload)
        })
    } else {
        pool
    };
    let mut finding = finding.remedy(pool);
    finding = finding.remedy(Remedy::sysctl(
        "Widen the range (keep your own listening ports out: ip_local_reserved_ports)",
        RANGE,
        "10240 65535",
        verify,
    ));
    let in_time_wait = destination.time_wait * 2 >= taken;
    if in_time_wait && !reuses(e, destination) && e.sysctl_number("net.ipv4.tcp_tw_reuse") != Ok(1) {
        finding = finding.remedy(Remedy::sysctl(
            "Let connect() take over ports in TIME_WAIT (needs TCP timestamps at both ends)",
            "net.ipv4.tcp_tw_reuse",
            1,
            "connect() no longer fails with Cannot assign requested address",
        ));
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, address};
    use crate::source::socket_dump::SocketDump;

    fn case(to: &str, ports_used: u64, time_wait: u64) -> Case {
        let destination = Destination {
            source: address("10.0.0.9"),
            address: address(to),
            port: 5432,
            ports_used,
            time_wait,
            fin_wait2: 0,
            inodes: Vec::new(),
        };
        let socket_dump = SocketDump { destinations: vec![destination], ..SocketDump::default() };
        Case::new()
            .sysctl(RANGE, "32768\t60999")
            .sysctl("net.ipv4.tcp_tw_reuse", "2")
            .sysctl("net.ipv4.tcp_timestamps", "1")
            .socket_dump(SocketDump::default(), socket_dump)
    }

    #[test]
    fn ports_that_no_two_destinations_share_were_bound_first() {
        let case = |destinations: u16, each: u64, distinct: u16| {
            let to = |port: u16| Destination {
                source: address("10.0.0.9"),
                address: address("10.0.7.1"),
                port,
                ports_used: each,
                time_wait: 0,
                fin_wait2: 0,
                inodes: Vec::new(),
            };
            let mut used_ports = vec![0_u64; 1024];
            (40_000..40_000 + distinct).for_each(|port| used_ports[usize::from(port / 64)] |= 1 << (port % 64));
            let dump =
                SocketDump { destinations: (1..=destinations).map(to).collect(), used_ports, ..SocketDump::default() };
            Case::new().sysctl(RANGE, "40000\t40199").socket_dump(SocketDump::default(), dump)
        };
        let finding = case(4, 50, 200).finding(&EPHEMERAL_PORTS_EXHAUSTED);
        assert_eq!(finding.severity, Severity::Critical);
        assert!(finding.remedies[0].text.contains("IP_BIND_ADDRESS_NO_PORT"), "{finding:?}");
        let ruled_out = |case: Case| matches!(case.judge(&EPHEMERAL_PORTS_EXHAUSTED), Ok(Verdict::RuledOut(_)));
        assert!(ruled_out(case(4, 50, 130)), "shared between destinations");
        assert!(ruled_out(case(4, 100, 200)), "more sockets than ports: connect() chose them");
    }

    #[test]
    fn all_ports_towards_one_destination_are_found() {
        let finding = case("10.0.7.1", 28_230, 28_000).finding(&EPHEMERAL_PORTS_EXHAUSTED);
        assert_eq!((finding.state, finding.severity), (State::Active, Severity::Critical));
        assert!(finding.remedies.iter().any(|r| r.line().as_deref() == Some("sysctl -w net.ipv4.tcp_tw_reuse=1")));
    }

    #[test]
    fn reuse_is_not_advised_for_open_connections() {
        let finding = case("10.0.7.1", 28_230, 30).finding(&EPHEMERAL_PORTS_EXHAUSTED);
        assert!(finding.remedies.iter().all(|remedy| !remedy.line().as_deref().unwrap_or("").contains("tw_reuse")));
    }

    #[test]
    fn most_ports_are_a_risk() {
        assert_eq!(case("10.0.7.1", 23_000, 0).finding(&EPHEMERAL_PORTS_EXHAUSTED).state, State::Risk);
    }

    #[test]
    fn a_high_total_of_time_wait_over_many_destinations_is_fine() {
        let mut case = case("10.0.7.1", 9_000, 9_000).sockstat("TCP.tw", 60_000);
        if let crate::value::Observed::Full(socket_dump) = &mut case.netns.after.socket_dump {
            let socket_dump = std::sync::Arc::make_mut(socket_dump);
            let one = socket_dump.destinations[0].clone();
            socket_dump.destinations.extend((2..6).map(|n| Destination { port: n, ..one.clone() }));
        }
        assert!(matches!(case.judge(&EPHEMERAL_PORTS_EXHAUSTED), Ok(Verdict::RuledOut(_))));
    }

    #[test]
    fn time_wait_that_the_kernel_reuses_on_loopback_is_free() {
        assert!(matches!(
            case("127.0.0.1", 28_230, 28_000).judge(&EPHEMERAL_PORTS_EXHAUSTED),
            Ok(Verdict::RuledOut(_))
        ));
    }

    #[test]
    fn reserved_ports_are_not_available() {
        assert_eq!(available("32768\t60999", ""), Some(28_232));
        assert_eq!(available("1000 1099", "80,1000-1009,1090-2000"), Some(80));
        assert_eq!(available("1000", ""), None);
    }

    #[test]
    fn without_the_sweep_nothing_is_claimed() {
        let case = Case::new().sysctl(RANGE, "32768\t60999");
        assert_eq!(case.judge(&EPHEMERAL_PORTS_EXHAUSTED).expect_err("no sweep").source, "sockets");
    }
}
