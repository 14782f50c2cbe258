use super::*;
use crate::attribution::{GoneProcesses, Group, Grouped, attribute, gone_listeners, grouped, surroundings};
use crate::observation::testing::Case;
use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::source::reset_packets::{Code, Unreachable};
use crate::value::{Observed, TcpState};
use std::time::Duration;

const REFUSED: [&str; 2] = ["10.0.0.9:9200", "10.0.3.7:0"];
const RST: u8 = 0x04;
const RST_ACK: u8 = 0x14;

fn seen(view: View<'_>) -> (Grouped, Surroundings) {
    let grouped = grouped(view);
    let around = surroundings(view, &grouped, &gone_listeners(view), &GoneProcesses::new(view));
    (grouped, around)
}

fn wire(case: &Case) -> Wire {
    let view = case.view();
    let (grouped, around) = seen(view);
    Wire::new(view, &grouped, &around).expect("packets")
}

fn groups(case: &Case) -> Vec<Group> {
    let view = case.view();
    let (grouped, around) = seen(view);
    attribute(view, &grouped, &around, None).expect("events").groups
}

fn kinds(case: &Case) -> BTreeMap<Kind, u64> {
    let mut kinds = BTreeMap::new();
    for group in groups(case) {
        *kinds.entry(group.kind).or_default() += group.count;
    }
    kinds
}

fn refused() -> Case {
    Case::new().counter("Tcp.OutRsts", 0, 20).sent(20, "NO_SOCKET", None, REFUSED, None)
}

#[test]
fn what_a_reset_answered_tells_a_refused_connect_from_a_stale_connection() {
    let syn = refused().packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&syn), [(Kind::Refused, 20)].into());
    let segment = refused().packets(20, Direction::Sent, RST, 64, REFUSED);
    assert_eq!(kinds(&segment), [(Kind::Stale, 20)].into());
}

#[test]
fn a_received_reset_that_no_counter_here_knows_is_of_another_namespace_with_the_same_address() {
    let case = |ended: u64| {
        let mut case = Case::new()
            .received(20, TcpState::Established, ["10.0.0.9:80", "10.0.3.7:0"])
            .packets(0, Direction::Sent, RST_ACK, 64, REFUSED)
            .counter("Tcp.EstabResets", 0, ended);
        let Observed::Full(packets) = &mut case.netns.reset_packets else { panic!("packets are seen") };
        // Some were lost: that none was seen here proves nothing.
        packets.lost = 5;
        kinds(&case)
    };
    assert_eq!(case(0), [].into());
    assert_eq!(case(20).values().sum::<u64>(), 20);
}

#[test]
fn a_received_reset_of_an_address_that_is_not_of_this_namespace_is_not_its_own() {
    let case = |own: &str| {
        let mut case = Case::new()
            .received(20, TcpState::Established, ["10.98.7.2:0", "10.98.7.1:8081"])
            .packets(0, Direction::Sent, RST_ACK, 64, REFUSED)
            .local_address(own)
            .counter("Tcp.EstabResets", 0, 400);
        let Observed::Full(packets) = &mut case.netns.reset_packets else { panic!("packets are seen") };
        // Some of its own were lost: its counters leave room for those of others.
        packets.lost = 5;
        kinds(&case)
    };
    assert_eq!(case("10.0.0.9"), [].into());
    assert_eq!(case("10.98.7.2").values().sum::<u64>(), 20);
}

#[test]
fn events_of_another_namespace_with_the_same_address_are_left_out() {
    let twice = refused()
        .sent(20, "NO_SOCKET", None, ["10.0.0.9:9300", "10.0.3.7:0"], None)
        .received(20, TcpState::Established, ["10.0.0.9:80", "10.0.3.7:0"])
        .counter("Tcp.EstabResets", 0, 0)
        .counter("Tcp.AttemptFails", 0, 0)
        .packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&twice), [(Kind::Refused, 20)].into());
}

/// Twelve closed ports, one answer each, to the peer of [`refused`].
fn many_ports(case: Case) -> Case {
    (9001..=9012)
        .fold(case, |case, port| case.sent(1, "NO_SOCKET", None, [&format!("10.0.0.9:{port}"), "10.0.3.7:0"], None))
}

#[test]
fn what_another_namespace_answers_makes_nobody_a_scanner_here() {
    // What nobody answered has an event without a namespace: its packet tells that, and was seen in another one.
    let mut elsewhere = many_ports(Case::new());
    if let Observed::Full(events) = &mut elsewhere.events {
        events.iter_mut().for_each(|event| event.netns = None);
    }
    let mut case = refused().packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    if let (Observed::Full(events), Observed::Full(others)) = (&mut case.events, elsewhere.events) {
        events.extend(others);
    }
    assert_eq!(kinds(&case), [(Kind::Refused, 20)].into());
    let here = many_ports(Case::new().counter("Tcp.OutRsts", 0, 12));
    let here = (9001..=9012).fold(here, |case, port| {
        case.packets(1, Direction::Sent, RST_ACK, 64, [&format!("10.0.0.9:{port}"), "10.0.3.7:0"])
    });
    assert_eq!(kinds(&here), [(Kind::Scanned, 12)].into());
}

#[test]
fn who_calls_a_dead_service_again_and_again_may_scan_as_well_and_is_no_scanner_of_it() {
    let both = many_ports(refused());
    assert_eq!(kinds(&both), [(Kind::Refused, 20), (Kind::Scanned, 12)].into());
    // Twelve services of one host that is gone, each called by its clients.
    let gone = (0..6).fold(Case::new(), |case, _| many_ports(case));
    assert_eq!(kinds(&gone), [(Kind::Refused, 72)].into());
    // A scanner that begins anew each second.
    let rounds = (1..=120).fold(refused(), |case, port| {
        case.sent(6, "NO_SOCKET", None, [&format!("10.0.0.9:{port}"), "10.0.3.7:0"], None)
    });
    assert_eq!(kinds(&rounds), [(Kind::Refused, 20), (Kind::Scanned, 720)].into());
}

#[test]
fn late_answers_of_a_service_that_was_called_from_here_are_no_scan_by_it() {
    let late = |case| {
        (40_001..=40_012).fold(case, |case: Case, port| {
            case.sent(1, "NO_SOCKET", None, [&format!("10.0.0.9:{port}"), "10.0.3.7:5432"], None)
        })
    };
    assert_eq!(kinds(&late(refused())), [(Kind::Refused, 20), (Kind::Stale, 12)].into());
}

#[test]
fn a_reset_that_a_rule_dropped_before_the_device_is_still_one_of_ours() {
    let dropped = refused().packets(0, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&dropped), [(Kind::Refused, 20)].into());
}

#[test]
fn with_packets_missing_the_place_decides_as_before() {
    let mut case = refused().counter("Tcp.OutRsts", 0, 10).packets(3, Direction::Sent, RST_ACK, 64, REFUSED);
    if let Observed::Full(packets) = &mut case.netns.reset_packets {
        packets.lost = 1;
    }
    assert_eq!(kinds(&case), [(Kind::Refused, 20)].into());
    let none = case.counter("Tcp.OutRsts", 0, 0);
    assert_eq!(kinds(&none), [].into(), "this namespace sent none: they are of one with the same address");
}

#[test]
fn a_reset_from_listen_gets_its_peer_from_the_packet() {
    let mut case = Case::new()
        .counter("Tcp.OutRsts", 0, 4)
        .sent(4, "TCP_FLAGS", Some(TcpState::Listen), ["10.0.0.9:80", "10.0.3.7:0"], None)
        .packets(4, Direction::Sent, RST, 64, ["10.0.0.9:80", "10.0.3.7:0"]);
    if let Observed::Full(events) = &mut case.events {
        events.iter_mut().for_each(|event| event.peer = None);
    }
    let groups = groups(&case);
    assert_eq!(
        groups.iter().map(|group| (group.peer, group.count)).collect::<Vec<_>>(),
        [("10.0.3.7".parse().ok(), 4)]
    );
}

#[test]
fn a_reset_on_loopback_in_a_strangers_name_is_our_own_firewall() {
    let ends = ["10.0.0.9:40000", "10.0.7.1:5432"];
    let mut case = Case::new().received(1, TcpState::SynSent, ends).packets(1, Direction::Received, RST, 64, ends);
    if let Observed::Full(packets) = &mut case.packets {
        packets.iter_mut().for_each(|packet| packet.loopback = true);
    }
    assert_eq!(kinds(&case), [(Kind::FirewallReject, 1)].into());
    let wire = wire(&case);
    assert_eq!((wire.rejected[0].hook, wire.rejected[0].called), (Hook::Output, "10.0.7.1:5432".parse().ok()));
}

#[test]
fn a_few_packets_at_the_edges_of_a_storm_are_no_firewall() {
    let storm = |packets| {
        let mut case = Case::new().counter("Tcp.OutRsts", 0, 2_000).packets(packets, Direction::Sent, RST, 64, REFUSED);
        if let Observed::Full(packets) = &mut case.packets {
            packets.iter_mut().for_each(|packet| packet.at = Duration::from_secs(1001));
        }
        wire(&case).rejected_total()
    };
    assert_eq!(storm(2_010), 0, "counters and packets do not begin at the same instant");
    assert_eq!(storm(2_100), 79, "a hundred too many are somebody's");
}

/// RSTs that passed, or seemed to pass, through this host, in the name of 10.2.0.2:5432.
fn forwarded(ttl: u8, came_in: bool) -> Case {
    const ENDS: [&str; 2] = ["10.2.0.2:5432", "10.1.0.2:0"];
    let out = Case::new().counter("Tcp.OutRsts", 0, 0).packets(20, Direction::Sent, RST_ACK, ttl, ENDS);
    let mut case = if came_in { out.packets(20, Direction::Received, RST_ACK, ttl, [ENDS[1], ENDS[0]]) } else { out };
    if let Observed::Full(packets) = &mut case.packets {
        packets.iter_mut().for_each(|packet| packet.local_here = false);
        // What came in has the ends the other way round: its source is the peer.
        for packet in packets.iter_mut().filter(|packet| packet.direction == Direction::Received) {
            packet.interface = 3;
        }
    }
    case
}

#[test]
fn a_reset_in_anothers_name_that_never_came_in_is_a_forward_rules() {
    let rejected = wire(&forwarded(64, false)).rejected;
    assert_eq!((rejected.len(), rejected[0].hook, rejected[0].count), (1, Hook::Forward, 20));
    assert_eq!(rejected[0].called, "10.2.0.2:5432".parse().ok());
    assert_eq!(rejected[0].peers.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.2"]);
}

#[test]
fn a_reset_that_only_passes_is_nobodys_here() {
    assert!(wire(&forwarded(63, false)).rejected.is_empty(), "it was routed");
    assert!(wire(&forwarded(64, true)).rejected.is_empty(), "a bridge leaves the TTL as it is");
    let tcp = forwarded(64, false).counter("Tcp.OutRsts", 0, 20);
    assert!(wire(&tcp).rejected.is_empty(), "a transparent proxy's TCP sent them");
}

fn icmp(direction: Direction, here: [bool; 3], code: Code) -> Wire {
    let address = |text: &str| text.parse().expect("address");
    let [reporter_here, source_here, destination_here] = here;
    let error = Unreachable {
        direction,
        code,
        reporter: address(if reporter_here { "10.0.0.9" } else { "10.0.7.1" }),
        source: "10.0.0.9:0".parse().expect("address"),
        destination: "10.0.7.1:5432".parse().expect("address"),
        answer: false,
        reporter_here,
        source_here,
        destination_here,
    };
    let mut case = Case::new().packets(0, Direction::Sent, RST, 64, REFUSED);
    if let Observed::Full(account) = &mut case.netns.reset_packets {
        (0..7).for_each(|_| account.unreachable.count(error));
    }
    wire(&case)
}

#[test]
fn an_icmp_error_is_told_by_who_sent_it_and_whose_the_ends_are() {
    let hook = |direction, here| {
        let rejected = icmp(direction, here, Code::Port).rejected;
        rejected.first().map(|rejected| (rejected.hook, rejected.port, rejected.count))
    };
    assert_eq!(hook(Direction::Sent, [true, false, true]), Some((Hook::Input, Some(5432), 7)));
    assert_eq!(hook(Direction::Sent, [true, true, false]), Some((Hook::Output, None, 7)));
    assert_eq!(hook(Direction::Sent, [true, false, false]), Some((Hook::Forward, None, 7)));
    assert_eq!(hook(Direction::Received, [false, true, false]), Some((Hook::Remote, None, 7)));
    assert_eq!(hook(Direction::Sent, [false, false, false]), None, "passed on");
    assert_eq!(hook(Direction::Received, [true, true, false]), None, "its own, come back");
}

#[test]
fn a_host_that_is_out_of_reach_is_no_firewall() {
    let wire = icmp(Direction::Sent, [true, true, false], Code::Host);
    assert_eq!((wire.rejected.len(), wire.no_way[0].own, wire.no_way[0].count), (0, true, 7));
    let by_the_called = icmp(Direction::Received, [false, true, false], Code::Host);
    assert_eq!(by_the_called.rejected[0].hook, Hook::Remote, "who is called does not say so of itself");
}

/// A host whose kernel reports no answer by a socket that is not there.
fn older(case: Case) -> Case {
    let mut case = case.tracepoints();
    case.host.after.facts.kernel = Some("6.1.0-50-amd64".to_owned());
    case
}

const DATABASE: [&str; 2] = ["10.0.0.9:5432", "10.0.3.7:0"];

#[test]
fn answers_that_an_older_kernel_does_not_report_are_told_by_their_packets() {
    let refused = older(Case::new()).counter("Tcp.OutRsts", 0, 20).packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&refused), [(Kind::Refused, 20)].into());
    let unheard = older(Case::new()).counter("Tcp.OutRsts", 0, 20).packets(20, Direction::Sent, RST, 64, REFUSED);
    assert_eq!(kinds(&unheard), [(Kind::Answer, 20)].into(), "of a connection that was closed, or of none");
    let stale = unheard.destroyed_sockets(1, DATABASE, 0, 0);
    assert_eq!(kinds(&stale), [(Kind::Stale, 20)].into());
    let closed = stale.destroyed_sockets(20, REFUSED, 0, 0);
    assert_eq!(kinds(&closed), [(Kind::LateData, 20)].into());
    let evidence = crate::evidence::Evidence::new(closed.view());
    let sent = &evidence.ledger().sent;
    assert_eq!((sent.unexplained(), sent.lines[0].basis), (Some(0), crate::evidence::ledger::Basis::Deduced));
}

#[test]
fn what_an_older_kernel_did_not_count_is_the_firewalls() {
    let rejected = |case: Case| {
        let case = older(case);
        (kinds(&case), wire(&case).rejected_total())
    };
    let packets = |case: Case, ends| case.packets(20, Direction::Sent, RST_ACK, 64, ends);
    let none_counted = packets(Case::new().counter("Tcp.OutRsts", 0, 0), REFUSED);
    assert_eq!(rejected(none_counted), ([].into(), 20));
    let process = crate::observation::testing::process(7, "postgres");
    let half = Case::new().counter("Tcp.OutRsts", 0, 20).listener("0.0.0.0:5432", 128, 0, 0, &process);
    let both = packets(packets(half, REFUSED), DATABASE);
    assert_eq!(rejected(both), ([(Kind::Refused, 20)].into(), 20), "a listener refuses nobody");
    let unclear = packets(packets(Case::new().counter("Tcp.OutRsts", 0, 20), REFUSED), DATABASE);
    assert_eq!(rejected(unclear), ([].into(), 20), "half of them, and nobody can say which");
}

/// Counters, events and packets of a storm do not begin and end at the same instant.
#[test]
fn a_few_packets_too_many_beside_a_storm_are_no_firewalls() {
    let storm = |counted| {
        let nginx = || Some(crate::observation::testing::task(977, "nginx"));
        let ends = ["10.0.0.9:8080", "10.0.4.7:0"];
        let case = older(Case::new()).counter("Tcp.OutRsts", 0, counted);
        case.sent(1_000, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, nginx())
    };
    let case = storm(1_016).packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&case), [(Kind::UnreadData, 1_000), (Kind::Refused, 20)].into());
    assert_eq!(wire(&case).rejected_total(), 0);
    let process = crate::observation::testing::process(7, "postgres");
    let case = storm(1_000).listener("0.0.0.0:5432", 128, 0, 0, &process);
    let case = case.packets(8, Direction::Sent, RST_ACK, 64, DATABASE);
    assert_eq!(wire(&case).rejected_total(), 8, "however few: a listener refuses nobody");
}

#[test]
fn packets_alone_tell_what_was_sent_and_not_what_was_received() {
    let case = Case::new().counter("Tcp.OutRsts", 0, 20).packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&case), [(Kind::Refused, 20)].into());
    let view = case.view();
    let (grouped, around) = seen(view);
    let attribution = attribute(view, &grouped, &around, None).expect("packets");
    assert!(attribution.sent.is_ok() && attribution.received.is_err());
}
