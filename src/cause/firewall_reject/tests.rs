use super::super::State;
use super::super::connect_unanswered::CONNECT_UNANSWERED;
use super::super::upstream_refused::UPSTREAM_REFUSED;
use super::*;
use crate::observation::testing::{Case, process};
use crate::source::reset_events::Direction;
use crate::source::reset_packets::Unreachable;
use crate::value::Observed;

const RST: u8 = 4;

fn case() -> Case {
    Case::new().counter("Tcp.OutRsts", 0, 0).tracepoints().listener("0.0.0.0:8080", 128, 0, 0, &process(1, "web"))
}

#[test]
fn resets_on_the_wire_that_tcp_did_not_send_are_the_firewalls() {
    let finding =
        case().packets(40, Direction::Sent, RST, 64, ["10.0.0.9:8080", "10.0.3.7:0"]).finding(&FIREWALL_REJECT);
    assert_eq!((finding.severity, finding.impact.events), (Severity::Warning, 40));
    assert_eq!(finding.subjects[0].port, Some(8080));
}

#[test]
fn a_rule_on_a_port_that_nobody_serves_is_as_intended() {
    let finding = case().packets(40, Direction::Sent, RST, 64, ["10.0.0.9:23", "10.0.3.7:0"]).finding(&FIREWALL_REJECT);
    assert_eq!(finding.state, State::Benign);
}

#[test]
fn what_tcp_sent_and_what_containers_sent_is_not_this() {
    let own = case()
        .counter("Tcp.OutRsts", 0, 40)
        .sent(40, "NO_SOCKET", None, ["10.0.0.9:9200", "10.0.3.7:0"], None)
        .packets(40, Direction::Sent, RST, 64, ["10.0.0.9:9200", "10.0.3.7:0"]);
    assert!(own.is_ruled_out(&FIREWALL_REJECT));
    let routed = case().packets(40, Direction::Sent, RST, 63, ["10.0.0.9:8080", "10.0.3.7:0"]);
    assert!(routed.is_ruled_out(&FIREWALL_REJECT));
}

#[test]
fn without_events_only_the_number_is_known_when_tcp_sends_too() {
    let mixed = Case::new().counter("Tcp.OutRsts", 0, 10).packets(
        30,
        Direction::Sent,
        RST,
        64,
        ["10.0.0.9:8080", "10.0.3.7:0"],
    );
    let finding = mixed.finding(&FIREWALL_REJECT);
    assert_eq!((finding.impact.events, finding.severity), (20, Severity::Info));
}

/// Where nobody answers ARP the kernel refuses its own connects, which any user sees by these counters.
#[test]
fn errors_that_this_host_sent_to_itself_are_no_rule_for_certain() {
    let icmp = |sent: u64, came: u64| {
        Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.EstabResets", 0, 0)
            .counter("Tcp.ActiveOpens", 0, 40)
            .counter("Tcp.AttemptFails", 0, 20)
            .counter("TcpExt.TCPAbortOnTimeout", 0, 0)
            .counter("TcpExt.EmbryonicRsts", 0, 0)
            .counter("Udp.NoPorts", 0, 0)
            .counter("Icmp.OutDestUnreachs", 0, sent)
            .counter("Icmp.InDestUnreachs", 0, came)
    };
    assert_eq!(icmp(32, 32).missing(&FIREWALL_REJECT), Some("reset_packets"));
    assert!(icmp(32, 32).is_ruled_out(&UPSTREAM_REFUSED), "no other host refused them");
    assert_eq!(icmp(0, 20).finding(&UPSTREAM_REFUSED).impact.events, 20);
    let finding = icmp(32, 32).finding(&CONNECT_UNANSWERED);
    assert!(finding.summary.starts_with("20 connects of programs on this host failed"), "{}", finding.summary);
    assert!(finding.confidence <= 0.6, "{}", finding.confidence);
    let said: String = finding.remedies.iter().map(|remedy| remedy.text.as_str()).collect();
    assert!(said.contains("neighbour") && said.contains("output chain"), "{said}");
    // Another host refuses the connects, or a rule here the clients.
    assert_eq!(icmp(0, 20).finding(&FIREWALL_REJECT).impact.events, 20);
    assert_eq!(icmp(32, 0).finding(&FIREWALL_REJECT).impact.events, 32);
    for other in [icmp(0, 20), icmp(32, 0)] {
        assert!(!matches!(other.judge(&CONNECT_UNANSWERED), Ok(Verdict::Found(_))));
    }
}

#[test]
fn the_rules_are_looked_for_in_the_tables_of_the_family() {
    let look = |case: Case| case.finding(&FIREWALL_REJECT).remedies[0].line().unwrap_or_default();
    let four = look(case().packets(40, Direction::Sent, RST, 64, ["10.0.0.9:8080", "10.0.3.7:0"]));
    assert!(four.contains("iptables-save") && !four.contains("ip6tables-save"), "{four}");
    let six = Case::new().counter("Tcp.OutRsts", 0, 0).tracepoints().listener("[::]:80", 9, 0, 0, &process(1, "web"));
    let six = look(six.packets(40, Direction::Sent, RST, 64, ["[fd00::9]:80", "[fd00::7]:0"]));
    assert!(six.contains("ip6tables-save"), "{six}");
}

fn by_icmp(code: Code, here: [bool; 3]) -> Case {
    let [reporter_here, source_here, destination_here] = here;
    let address = |here: bool| if here { "10.0.0.9" } else { "10.0.7.1" };
    let error = Unreachable {
        direction: if reporter_here { Direction::Sent } else { Direction::Received },
        code,
        reporter: address(reporter_here).parse().unwrap(),
        source: format!("{}:0", if source_here { "10.0.0.9" } else { "10.0.3.7" }).parse().unwrap(),
        destination: format!("{}:18081", address(destination_here)).parse().unwrap(),
        answer: false,
        reporter_here,
        source_here,
        destination_here,
    };
    let mut case = case().packets(0, Direction::Sent, RST, 64, ["10.0.0.9:8080", "10.0.3.7:0"]);
    let Observed::Full(account) = &mut case.netns.reset_packets else { panic!("packets are seen") };
    (0..7).for_each(|_| account.unreachable.count(error));
    case
}

#[test]
fn host_unreachable_is_more_likely_a_dead_dnat_target_than_a_rule() {
    for here in [[true, false, true], [false, true, false]] {
        let case = by_icmp(Code::Host, here).counter("Tcp.AttemptFails", 0, 7);
        let finding = case.finding(&FIREWALL_REJECT);
        assert!(finding.confidence <= 0.5 && finding.state == State::Active, "{finding:?}");
        assert!(finding.summary.contains("answered with ICMP host unreachable"), "{}", finding.summary);
        assert!(!finding.summary.contains("firewall") && finding.remedies[0].text.contains("DNAT"), "{finding:?}");
    }
    let rule = by_icmp(Code::Prohibited, [false, true, false]).counter("Tcp.AttemptFails", 0, 7);
    assert!(rule.finding(&FIREWALL_REJECT).confidence > 0.9);
}

#[test]
fn an_error_of_which_every_connect_took_no_notice_is_no_fault() {
    let case = by_icmp(Code::Port, [false, true, false]);
    let case = case.counter("Tcp.AttemptFails", 0, 0).counter("TcpExt.TCPSynRetrans", 0, 7);
    assert!(case.is_ruled_out(&FIREWALL_REJECT));
}

#[test]
fn without_packets_nothing_is_claimed() {
    let case = Case::new().counter("Tcp.OutRsts", 0, 20).tracepoints();
    assert_eq!(case.missing(&FIREWALL_REJECT), Some("reset_packets"));
}
