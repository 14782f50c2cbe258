use super::*;

fn stories(text: &str) -> Vec<Story> {
    let mut packets = Packets::default();
    text.lines().for_each(|line| assert_eq!(packets.line(line), Taken::Understood, "{line}"));
    packets.stories().iter().map(|(story, ..)| *story).collect()
}

#[test]
fn a_number_is_relative_or_not_whatever_the_first_one_was() {
    use super::absolute;
    for first in [100, 1 << 26, 605_291_326, u32::MAX - (1 << 26)] {
        assert_eq!(absolute(first, 1), first.wrapping_add(1), "{first}");
        assert_eq!(absolute(first, first.wrapping_add(1)), first.wrapping_add(1), "{first}");
    }
}

#[test]
fn each_phase_is_told() {
    let of = |text: &str| stories(text)[0];
    let syn = "15:49:30.581073 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [S], seq 3001417275, win 64240, length 0\n";
    let ack = "15:49:30.581345 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [S.], seq 1417276495, ack 3001417276, win 64148, length 0\n";
    let third = "15:49:30.581400 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [.], ack 1, win 502, length 0\n";
    let data =
        "15:49:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 1:97, ack 1, win 502, length 96: BGP\n";
    let fin = "15:49:30.581567 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [F.], seq 1, ack 1, win 251, length 0\n";
    let rst = "15:49:30.581711 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R], seq 1417276496, win 0, length 0\n";
    let own = "15:49:30.582971 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [R.], seq 1, ack 1, win 502, length 0\n";
    let refused =
        "15:49:30.581345 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R.], seq 0, ack 3001417276, win 0, length 0\n";
    let idle = "15:55:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 97:193, ack 1, win 502, length 96\n";
    let late_rst = "15:55:30.581711 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R], seq 1417276496, win 0, length 0\n";
    assert_eq!(of(&[syn, refused].concat()), Story::Refused);
    assert_eq!(of(&[syn, syn, syn].concat()), Story::Unanswered);
    assert_eq!(of(&[syn, ack, own].concat()), Story::Probe);
    assert_eq!(of(&[syn, ack, third, fin, data, rst].concat()), Story::TurnedAway);
    assert_eq!(of(&[syn, ack, third, data, rst].concat()), Story::Stale);
    assert_eq!(of(&[syn, ack, third, data, idle, late_rst].concat()), Story::AfterPause);
    assert!(stories(&[syn, ack, third, data].concat()).is_empty());
}

#[test]
fn forms_of_other_options_and_of_tshark_are_read() {
    let verbose = "15:49:30.58 IP (tos 0x0, ttl 64, id 4660, offset 0, flags [DF], proto TCP (6), length 60)\n    10.0.0.1.40000 > 10.0.0.2.80: Flags [S], cksum 0x1 (correct), seq 1, win 64240, options [mss 1460], length 0\n15:49:30.59 IP (tos 0x0, ttl 61, id 0, offset 0, flags [DF], proto TCP (6), length 40)\n    10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], cksum 0x1 (correct), seq 0, ack 2, win 0, length 0";
    let link = "1700000000.5 aa:bb:cc:00:00:01 > aa:bb:cc:00:00:02, ethertype IPv4 (0x0800), length 74: 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1, win 64240, length 0\n1700000000.6 aa:bb:cc:00:00:02 > aa:bb:cc:00:00:01, ethertype IPv4 (0x0800), length 54: 10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], seq 0, ack 2, win 0, length 0";
    let tshark = "    1 0.000000000   10.0.0.1 → 10.0.0.2   TCP 74 40000 → 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460\n    2 0.000100000   10.0.0.2 → 10.0.0.1   TCP 54 80 → 40000 [RST, ACK] Seq=1 Ack=1 Win=0 Len=0";
    let cooked = "12:00:00.1 eth0  Out IP6 fe80::1.40000 > fe80::2.80: Flags [S], seq 1, win 1, length 0\n12:00:00.2 eth0  In  IP6 fe80::2.80 > fe80::1.40000: Flags [R.], seq 0, ack 2, win 0, length 0";
    for text in [verbose, link, tshark, cooked] {
        assert_eq!(stories(text), [Story::Refused], "{text}");
    }
    let mut packets = Packets::default();
    assert!(verbose.lines().all(|line| packets.line(line) == Taken::Understood));
    assert_eq!(packets.flows().told[0].flow.resets[0].ttl, Some(61));
}

#[test]
fn what_stands_around_a_line_and_other_clocks_change_nothing() {
    let plain = "00:00:00.000000 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1, win 64240, length 0\n00:00:00.250000 IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], seq 0, ack 2, win 0, length 0";
    let with = |before: &str| plain.lines().map(|line| format!("{before}{line}\n")).collect::<String>();
    let old = "10:00:00.1 10.0.0.1.40000 > 10.0.0.2.80: S 1:1(0) win 64240 <mss 1460>\n10:00:00.35 10.0.0.2.80 > 10.0.0.1.40000: R 0:0(0) ack 2 win 0";
    let wireshark = "  1 2026-02-03 13:47:05.5   10.0.0.1   10.0.0.2   TCP   74   40000 → 80 [SYN] Seq=0 Win=64240 Len=0\n  2 2026-02-03 13:47:05.75   10.0.0.2   10.0.0.1   TCP   54   80 → 40000 [RST, ACK] Seq=1 Ack=1 Win=0 Len=0";
    for text in [with("> "), with("    > > "), with("  1  "), with("2026-02-03 "), old.into(), wireshark.into()] {
        let mut packets = Packets::default();
        text.lines().for_each(|line| assert_eq!(packets.line(line), Taken::Understood, "{line}"));
        let told = &packets.flows().told[0];
        assert_eq!(told.readings[0].story, Story::Refused, "{text}");
        let answered = told.flow.resets[0].answers.map(|took| took.as_millis());
        assert_eq!(answered, Some(250), "{text}");
    }
}

#[test]
fn data_of_which_a_protocol_is_named_belongs_to_the_connection_between_the_two() {
    let text = "1 0.0 10.0.0.1 → 10.0.0.2 TCP 74 44338 → 22 [SYN] Seq=0 Win=64240 Len=0 TSval=1 TSecr=0\n2 0.1 10.0.0.2 → 10.0.0.1 TCP 74 22 → 44338 [SYN, ACK] Seq=0 Ack=1 Win=65160 Len=0 TSval=1 TSecr=1\n3 0.2 10.0.0.1 → 10.0.0.2 TCP 66 44338 → 22 [ACK] Seq=1 Ack=1 Win=64256 Len=0 TSval=2 TSecr=1\n4 0.3 10.0.0.1 → 10.0.0.2 SSH 671 Client: Encrypted packet (len=605)\n5 0.4 10.0.0.2 → 10.0.0.1 TCP 66 22 → 44338 [RST, ACK] Seq=1 Ack=1 Win=64640 Len=0 TSval=3 TSecr=2";
    let mut packets = Packets::default();
    text.lines().for_each(|line| assert_eq!(packets.line(line), Taken::Understood, "{line}"));
    let told = &packets.flows().told[0];
    let request = told.flow.end(crate::capture::Side::Initiator);
    assert_eq!((told.readings[0].story, request.bytes), (Story::UnreadData, 605));
    assert_eq!(packets.line("6 0.5 10.0.0.3 → 10.0.0.4 HTTP 200 GET / HTTP/1.1"), Taken::Unread);
    assert!(packets.flows().told[0].readings[0].sure == Sure::Perhaps, "a line was not read");
}

#[test]
fn a_line_that_is_cut_makes_nothing_sure() {
    let text = "15:49:30.58 IP 10.0.0.1.60868 > 10.0.0.2.80: Flags [S], seq 3001417275, win 64240, length 0\n15:49:30.59 IP 10.0.0.2.80 > 10.0.0.1.60868: Flags [S.], seq 1417276495, ack 3001417276, win 64148, length 0\n15:49:30.60 IP 10.0.0.1.60868 > 10.0.0.2.80: Flags [.], ack 1, win 502, length 0";
    let mut packets = Packets::default();
    text.lines().for_each(|line| assert_eq!(packets.line(line), Taken::Understood));
    for cut in [
        "15:49:30.61 IP 10.0.0.1.60868 > 10.0.0.2.80: Flags [P.], seq 1:",
        "15:49:30.62 IP 10.0.0.1.6 > 10.0.0.2.80: Flags [",
    ] {
        assert_eq!(packets.line(cut), Taken::Unread, "{cut}");
    }
    assert_eq!(
        packets.line("15:49:31.62 IP 10.0.0.2.80 > 10.0.0.1.60868: Flags [R.], seq 1, ack 1, win"),
        Taken::Understood
    );
    let told = &packets.flows().told[0];
    assert_eq!((told.readings[0].story, told.readings[0].sure), (Story::UnreadData, Sure::Perhaps));
}

#[test]
fn an_icmp_error_is_of_the_connect_that_it_answers() {
    let syn = "10:00:00.1 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1, win 64240, length 0\n";
    let syn6 = "10:00:00.1 IP6 2001:db8::1.40000 > 2001:db8::2.80: Flags [S], seq 1, win 64240, length 0\n";
    let quote = "\n\tIP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto TCP (6), length 60)\n    10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1, win 64240, length 0";
    for (syn, error, story) in [
        (syn, "10:00:00.2 IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 tcp port 80 unreachable, length 68".to_owned(), Story::Rejected),
        (syn, "10:00:00.2 IP 10.0.0.9 > 10.0.0.1: ICMP host 10.0.0.2 unreachable, length 68".to_owned(), Story::NoRoute),
        (syn, format!("10:00:00.2 IP 10.0.0.9 > 10.0.0.1: ICMP host 10.0.0.2 unreachable - admin prohibited filter, length 68{quote}"), Story::Rejected),
        (syn6, "10:00:00.2 IP6 2001:db8::9 > 2001:db8::1: ICMP6, destination unreachable, unreachable route 2001:db8::2, length 92".to_owned(), Story::NoRoute),
        (syn6, "10:00:00.2 IP6 2001:db8::9 > 2001:db8::1: [icmp6 sum ok] ICMP6, destination unreachable, unreachable prohibited 2001:db8::2".to_owned(), Story::Rejected),
        (syn6, "2 10:00:00.2 2001:db8::9 → 2001:db8::1 ICMPv6 146 Destination Unreachable (no route to destination)".to_owned(), Story::NoRoute),
    ] {
        assert_eq!(stories(&format!("{syn}{error}")), [story], "{error}");
    }
    assert!(
        stories(&format!("{syn}10:00:00.2 IP 10.0.0.9 > 10.0.0.1: ICMP host 10.0.0.7 unreachable, length 68"))
            .is_empty()
    );
}

#[test]
fn masked_hosts_keep_their_names() {
    let text = "22:10:01.1 IP xxx.xxx.x06.26.5000 > 151.101.xx.xxx.443: Flags [S], seq 5, win 1, length 0\n22:10:02.1 IP xxx.xxx.x06.26.5000 > 151.101.xx.xxx.443: Flags [S], seq 5, win 1, length 0";
    let mut packets = Packets::default();
    text.lines().for_each(|line| assert_eq!(packets.line(line), Taken::Understood));
    assert!(packets.remarks()[0].contains("xxx.xxx.x06.26:5000 > 151.101.xx.xxx:443"), "{:?}", packets.remarks());
}

#[test]
fn what_is_no_packet_is_left() {
    for line in ["everything is fine", "Flags [S]", "14:02:11 IP a > b: UDP, length 3", "a -> b", "ttl 64", ""] {
        assert_eq!(Packets::default().line(line), Taken::No, "{line}");
    }
}
