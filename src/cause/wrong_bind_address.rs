use std::collections::BTreeSet;
use std::net::IpAddr;

use super::numbers::wrong_bind_address as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Restart, Severity, Subject, Verdict, Verify, commands};
use super::{severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::evidence::service::Service;
use crate::knowledge::servers::server_named;
use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A service listens, but only on one address or family, and its clients use another: 127.0.0.1 against the address
    /// of the host, IPv4 against IPv6, also where a listener on `[::]` has IPV6_V6ONLY set. Or it takes connections from one network device only (SO_BINDTODEVICE, a VRF), and they
    /// come in by another. The kernel answers as if nothing listened: "Connection refused".
    ///
    /// ## How it shows
    ///
    /// The tracepoint tcp:tcp_send_reset gives the reason NO_SOCKET for a port on which a listener exists.
    ///
    /// ## How to confirm
    ///
    /// `ss -lnt 'sport = :PORT'` shows the address, and behind a % the device; compare them with what the clients use.
    ///
    /// ## What to change
    ///
    /// Bind to 0.0.0.0 and ::, or to the address that the clients use, and restart. In a container always 0.0.0.0. Take away
    /// a binding to a device, or let the clients come in by it.
    ///
    /// ## Look-alikes
    ///
    /// A client on this host that tries ::1 first and then 127.0.0.1 is refused once and succeeds: no fault. One that tries
    /// only ::1 (Node from 17 to 19) fails each time. A service
    /// kept on 127.0.0.1 on purpose, and outsiders who ask for it.
    WRONG_BIND_ADDRESS {
        id: "wrong-bind-address",
        title: "Listens on another address",
        explains: ["upstream-refused"],
        needs: [Window, ResetEvents, Listeners],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let groups = e.resets_of(WRONG_BIND_ADDRESS.id, Direction::Sent)?;
    if groups.is_empty() && e.attribution().is_ok_and(|resets| resets.count(Kind::Refused) > 0) {
        // One of those that were refused may have asked for an address beside the right one.
        e.services()?;
    }
    let findings = place::places(e, &groups).into_iter().map(|place| finding(e, place)).collect();
    Ok(Verdict::from_findings(findings, "no refused connect to a port that is open on another address"))
}

fn finding(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let asked = place.groups.first().map_or_else(String::new, |group| group.local.to_string());
    let local = place.groups.iter().all(|group| group.on_loopback());
    // A client within the host that knows both ::1 and 127.0.0.1 goes on to the next address at once, and is accepted there.
    let harm = place.port.map(|port| e.harm_of_connects(Target::Port(port), place.count));
    let harm = harm.map(|harm| severity::lately(e, WRONG_BIND_ADDRESS.id, harm));
    let accepted = harm.and_then(|harm| Some(harm.attempts?.saturating_sub(harm.failures)));
    let on_device = on_device(e, &place);
    let retried = local && on_device.is_none() && accepted.is_none_or(|accepted| accepted * 2 >= place.count);
    let severity = match harm {
        _ if retried => Severity::Info,
        Some(harm) => severity::to_callers(e, &harm),
        None => severity::refusals(e, place.count),
    };
    let bound = place.service(e).map(|service| service.address).filter(|_| on_device.is_none());
    let v6_only = place.service(e).is_some_and(|service| on_device.is_none() && service.is_v6_only());
    let listens = match (&on_device, place.service(e)) {
        (Some((service, device)), _) => format!("on {}, but only for what comes in by {device}", service.endpoint()),
        (None, Some(service)) if v6_only => format!("on {}, but only for IPv6", service.endpoint()),
        (None, Some(service)) => format!("only on {}", service.endpoint()),
        (None, None) => "elsewhere".to_owned(),
    };
    let summary = format!(
        "{} to {asked} refused in {}: {} listens {listens}",
        words::counted(place.count, "connection attempt"),
        words::seconds(e.window()),
        place.who(e)
    );
    let askers = place.port.map(|port| place::askers(e, port)).unwrap_or_default();
    let finding = wording::active(e, severity, numbers::NAMED, place.count, "refused connects", summary)
        .subjects(place.subjects(e))
        .evidence(place.item("NO_SOCKET", "no socket on this address"))
        .evidence_if(place::asked_by(&askers))
        .subjects(askers.iter().cloned())
        .harm_if(harm);
    let seen = Verify::by(commands::ss_of("ss -lnt", place.port), "shows the address that clients use");
    let look = commands::ss_of("ss -lntp", place.port);
    if let Some((_, device)) = &on_device {
        let text = format!("the socket is bound to {device}, and meets nothing that comes in by another");
        let change = format!(
            "Take the binding to {device} away (SO_BINDTODEVICE; BindToDevice= of a systemd socket; a VRF), or let the clients \
             come in by it"
        );
        let verify = Verify::by(commands::ss_of("ss -lnt", place.port), "shows no % behind the address");
        return finding
            .evidence(EvidenceItem::fact("listeners", "device", text))
            .remedy(Remedy::new(change, verify).restart(Restart::Service).command(look));
    }
    if v6_only {
        let text = "IPV6_V6ONLY is set on the socket: it takes nothing of IPv4";
        let change = format!(
            "Let the program take IPv4 as well: IPV6_V6ONLY off (nginx: ipv6only=off on its listen [::]), or a second listener on \
             {asked} or on all addresses"
        );
        return finding
            .evidence(EvidenceItem::fact("listeners", "v6only", text))
            .remedy(Remedy::new(change, seen).restart(Restart::Service).command(look));
    }
    match (retried, accepted, bound.filter(|_| local)) {
        (true, ..) => finding
            .against(EvidenceItem::fact(
                "reset_events",
                "peer",
                "the clients are on this host: probably ::1 and 127.0.0.1 are tried in turn, which harms nobody",
            ))
            .remedy(bind(&asked, seen).command(look)),
        (false, Some(accepted), Some(bound)) => finding
            .evidence(EvidenceItem::value(
                "destroyed_sockets",
                "accepted",
                accepted as f64,
                format!("{} accepted on {bound}: the clients try only {asked}", words::counted(accepted, "connection")),
            ))
            .remedy(
                Remedy::new(
                    use_other(&askers, &asked, bound),
                    Verify::scan("shows no refused connect, and the connect succeeds"),
                )
                .restart(Restart::Service),
            )
            .remedy(bind(&asked, seen).command(look)),
        _ => finding.remedy(bind(&asked, seen).command(look)),
    }
}

/// Index of the loopback device in every namespace (drivers/net/loopback.c loopback_net_init).
const LOOPBACK: u32 = 1;

/// A service that the clients asked for by an address that it has, and that takes them from one device only; with the name of that.
fn on_device<'e>(e: &'e Evidence<'_>, place: &Place<'_>) -> Option<(&'e Service<'e>, String)> {
    let asked = |service: &&Service<'_>| {
        let mut groups = place.groups.iter();
        groups.any(|group| service.address.is_unspecified() || service.address == group.local)
    };
    let mut services = e.services().ok()?.iter().filter(|service| Some(service.port) == place.port).filter(asked);
    services.find_map(|service| {
        let device = match service.device()? {
            LOOPBACK => "the device lo".to_owned(),
            index => format!("the device with the index {index}"),
        };
        Some((service, device))
    })
}

/// Node takes the addresses of a name as the resolver orders them since version 17 (`--dns-result-order`).
fn use_other(askers: &[Subject], asked: &str, bound: IpAddr) -> String {
    let names: BTreeSet<&str> = askers.iter().filter_map(|asker| asker.process.as_deref()).collect();
    let node = |name: &&str| server_named(name).is_some_and(|server| server.name == "Node.js");
    match (names.iter().next(), bound) {
        (Some(_), IpAddr::V4(_)) if names.iter().all(node) => {
            format!("Let node use {bound} in place of \"localhost\" (--dns-result-order=ipv4first)")
        }
        (Some(name), _) if names.len() == 1 => format!("Let {name} use {bound} in place of {asked}"),
        _ => format!(
            "Let the client use {bound} in place of {asked}, or of a name such as \"localhost\" that may mean both"
        ),
    }
}

fn bind(asked: &str, verify: Verify) -> Remedy {
    let text = format!("Bind the service to {asked} or to all addresses, or let the clients use the address it has");
    Remedy::new(text, verify).restart(Restart::Service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};

    #[test]
    fn localhost_tried_by_ipv6_first_is_no_alarm() {
        let finding = Case::new()
            .listener("127.0.0.1:9200", 128, 0, 0, &process(1, "app"))
            .sent(20, "NO_SOCKET", None, ["[::1]:9200", "[::1]:0"], None)
            .finding(&WRONG_BIND_ADDRESS);
        assert_eq!(finding.severity, Severity::Info);
    }

    #[test]
    fn a_client_that_tries_only_the_other_family_fails_each_time() {
        let case = |accepted| {
            Case::new()
                .listener("127.0.0.1:3306", 128, 0, 0, &process(1, "node"))
                .sent(20, "NO_SOCKET", None, ["[::1]:3306", "[::1]:0"], None)
                .destroyed_sockets(accepted, ["127.0.0.1:3306", "127.0.0.1:0"], 0, 0)
                .finding(&WRONG_BIND_ADDRESS)
        };
        assert_eq!(case(20).severity, Severity::Info, "tried in turn");
        let finding = case(0);
        assert_eq!(finding.severity, Severity::Critical, "all of them");
        assert!(finding.evidence.iter().any(|item| item.text.contains("try only ::1")), "{finding:?}");
    }

    #[test]
    fn a_listener_on_all_addresses_of_another_device_is_named_with_it() {
        let case = |device: u32| {
            let mut case = Case::new()
                .listener("0.0.0.0:8080", 64, 0, 0, &process(1, "python3"))
                .sent(40, "NO_SOCKET", None, ["10.0.0.9:8080", "10.0.0.3:0"], None)
                .packets(40, Direction::Sent, 0x14, 64, ["10.0.0.9:8080", "10.0.0.3:0"]);
            case.netns.listener_traces.values_mut().for_each(|trace| trace.last.device = device);
            case
        };
        let finding = case(1).finding(&WRONG_BIND_ADDRESS);
        let said = "python3 (pid 1) on port 8080 listens on 0.0.0.0:8080, but only for what comes in by the device lo";
        assert!(finding.summary.ends_with(said), "{}", finding.summary);
        assert!(finding.remedies[0].text.starts_with("Take the binding to the device lo away"), "{finding:?}");
        assert!(case(1).is_ruled_out(&super::super::port_without_listener::PORT_WITHOUT_LISTENER));
        assert!(case(4).finding(&WRONG_BIND_ADDRESS).summary.ends_with("the device with the index 4"));
        assert!(case(0).is_ruled_out(&WRONG_BIND_ADDRESS));
    }

    #[test]
    fn a_listener_for_ipv6_alone_is_named_to_who_asked_by_ipv4() {
        let case = |v6_only: bool, asked: &str| {
            let ends = [asked, if asked.starts_with('[') { "[fd77::2]:0" } else { "10.0.0.3:0" }];
            let mut case = Case::new()
                .listener("[::]:8080", 64, 0, 0, &process(1, "nginx"))
                .sent(40, "NO_SOCKET", None, ends, None)
                .packets(40, Direction::Sent, 0x14, 64, ends);
            case.netns.listener_traces.values_mut().for_each(|trace| trace.last.v6_only = v6_only);
            case
        };
        let finding = case(true, "10.0.0.9:8080").finding(&WRONG_BIND_ADDRESS);
        let said = "nginx (pid 1) on port 8080 listens on [::]:8080, but only for IPv6";
        assert!(finding.summary.ends_with(said), "{}", finding.summary);
        assert!(finding.remedies[0].text.contains("IPV6_V6ONLY off"), "{finding:?}");
        let nobody = &super::super::port_without_listener::PORT_WITHOUT_LISTENER;
        assert!(case(true, "10.0.0.9:8080").is_ruled_out(nobody));
        assert!(case(true, "[fd77::1]:8080").is_ruled_out(&WRONG_BIND_ADDRESS), "it takes those");
        assert!(case(false, "10.0.0.9:8080").is_ruled_out(&WRONG_BIND_ADDRESS), "and so does one of both");
    }

    #[test]
    fn the_option_of_node_is_for_node() {
        let use_other = |names: &[&str]| {
            let asker = |name: &&str| Subject { process: Some((*name).to_owned()), ..Subject::host() };
            let askers: Vec<_> = names.iter().map(asker).collect();
            super::use_other(&askers, "::1", "127.0.0.1".parse().expect("address"))
        };
        assert!(use_other(&["node"]).contains("--dns-result-order"));
        assert_eq!(use_other(&["nginx"]), "Let nginx use 127.0.0.1 in place of ::1");
        for others in [&["node", "nginx"][..], &[]] {
            assert!(!use_other(others).contains("--dns-result-order"), "{others:?}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_not_this() {
        let case = Case::new().listener("0.0.0.0:9200", 128, 0, 0, &process(1, "app")).sent(
            20,
            "NO_SOCKET",
            None,
            ["10.0.0.9:9200", "10.0.0.3:0"],
            None,
        );
        assert!(case.is_ruled_out(&WRONG_BIND_ADDRESS));
    }
}
