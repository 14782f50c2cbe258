use super::*;
use crate::attribution::{GoneProcesses, Group, Grouped, attribute, gone_listeners, grouped, surroundings};
use crate::observation::testing::Case;
use crate::reset::Kind;
use crate::value::{Observed, TcpState};
use std::time::Duration;

const REFUSED: [&str; 2] = ["10.0.0.9:9200", "10.0.3.7:0"];
const RST: u8 = 0x04;
const RST_ACK: u8 = 0x14;

fn seen(view: View<'_>) -> (Grouped, Surroundings) {
    let grouped = grouped(view);
    let tallies = grouped.here.iter().map(|(_, tally)| tally);
    let around = surroundings(view, tallies, &gone_listeners(view), &GoneProcesses::new(view));
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
    attribute(view, &grouped, &around).expect("events").groups
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
fn events_of_another_namespace_with_the_same_address_are_left_out() {
    let twice = refused()
        .sent(20, "NO_SOCKET", None, ["10.0.0.9:9300", "10.0.3.7:0"], None)
        .received(20, TcpState::Established, ["10.0.0.9:80", "10.0.3.7:0"])
        .counter("Tcp.EstabResets", 0, 0)
        .counter("Tcp.AttemptFails", 0, 0)
        .packets(20, Direction::Sent, RST_ACK, 64, REFUSED);
    assert_eq!(kinds(&twice), [(Kind::Refused, 20)].into());
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
